"""Whether data have what a model takes beside atoms."""

from __future__ import annotations

from collections.abc import Mapping

from atomtrain.data.store import StructureStore
from atomtrain.errors import OptionsError
from atomtrain.model import ExtraInput
from atomtrain.options import DatasetSection
from atomtrain.targets.units import same_unit


def check_inputs(
    inputs: Mapping[str, ExtraInput], store: StructureStore, section: DatasetSection
) -> None:
    """Raise OptionsError, with place and remedy, unless the ``section``'s ``store`` has these inputs of a model."""
    for name, wanted in inputs.items():
        where, found = section.where("extra_data", name), store.extra.get(name)
        kind = "atom" if wanted.per_atom else "system"
        remedy = f"{name}: {{key: {name}"
        remedy += f", sample_kind: {kind}" * wanted.per_atom
        remedy += f", num_subtargets: {wanted.width}" * (wanted.width > 1) + "}"
        if found is None:
            raise OptionsError(
                f"{section.where('extra_data')}: the model takes '{name}' of every {kind}, and the section does not "
                f"say where it is; write extra_data: {{{remedy}}}, with default: VALUE in it for those without"
            )
        if (found.per_atom, found.values.shape[1]) != (wanted.per_atom, wanted.width):
            raise OptionsError(
                f"{where}: the model takes {wanted.width} number(s) of every {kind}, and these are "
                f"{found.values.shape[1]} of every {'atom' if found.per_atom else 'system'}; write {remedy}"
            )
        unit = section.extra_data[name].unit if name in section.extra_data else ""
        if unit and wanted.unit and not same_unit(unit, wanted.unit):
            raise OptionsError(
                f"{where}: the model takes '{name}' in {wanted.unit}, and unit says {unit}; convert the data"
            )


def unused(inputs: Mapping[str, ExtraInput], store: StructureStore) -> list[str]:
    """Extra data that are neither inputs of a model nor masks, by name."""
    return [name for name in store.extra if name not in inputs and not name.endswith("_mask")]
