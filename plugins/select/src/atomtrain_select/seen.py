"""What a model says of structures: uncertainties per atom, and features."""

from __future__ import annotations

import numpy as np
import torch
from metatomic.torch import AtomisticModel, ModelEvaluationOptions, ModelOutput

from atomtrain.data import StructureStore
from atomtrain.errors import DataError, OptionsError
from atomtrain.evaluation import runs_on_cuda, systems_of
from atomtrain.model.export import requested_inputs
from atomtrain.model.export.archive import quiet_torchscript
from atomtrain.sections.names import symbols

FEATURES = ("feature", "features")
"""outputs with features of atoms: metatomic's name, and its older one"""


def uncertainty_output(model: AtomisticModel, target: str | None) -> str | None:
    """The output with the standard deviation of a target (default: the only one there is, or the energy's).

    OptionsError where that of ``target`` is missing.
    """
    found = [name for name in model.capabilities().outputs if name.endswith("_uncertainty")]
    if target is not None:
        wanted = [
            name for name in found if name.removeprefix("mtt::aux::") == f"{target}_uncertainty"
        ]
        if not wanted:
            raise OptionsError(
                f"the model has no uncertainty of '{target}' ({_listed(found)}); "
                "'architecture: {name: llpr}' adds one to a trained model (atomtrain-llpr)"
            )
        return wanted[0]
    if "energy_uncertainty" in found:
        return "energy_uncertainty"
    if len(found) > 1:
        raise OptionsError(f"the model has several uncertainties ({_listed(found)}); name a target")
    return found[0] if found else None


def features_output(model: AtomisticModel) -> str | None:
    """The output with features of atoms, if there is one."""
    outputs = model.capabilities().outputs
    return next((name for name in FEATURES if name in outputs), None)


def look(
    model: AtomisticModel,
    structures: StructureStore,
    length_unit: str,
    *,
    uncertainty: str | None,
    features: str | None,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Uncertainties ``[n]`` per atom and features ``[n, n_features]``, means over atoms, of what is asked for.

    DataError for elements that the model does not know, and for structures of which it gives no number.
    """
    _check_elements(model, structures)
    capabilities = model.capabilities()
    device = "cuda" if runs_on_cuda(model) else "cpu"
    model = model.to(device)
    outputs = {}
    if uncertainty is not None:
        unit = capabilities.outputs[uncertainty].unit
        outputs[uncertainty] = ModelOutput(unit=unit, sample_kind="system")
    if features is not None:
        outputs[features] = ModelOutput(sample_kind="atom")
    options = ModelEvaluationOptions(length_unit, outputs)
    lists, inputs = model.requested_neighbor_lists(), requested_inputs(model)
    dtype = getattr(torch, capabilities.dtype)
    found: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    with torch.no_grad(), quiet_torchscript():
        for k in range(len(structures)):
            part = torch.tensor([k])
            systems, _ = systems_of(
                structures, part, lists, length_unit, dtype, device, False, inputs
            )
            results = model(systems, options, check_consistency=False)
            for name in outputs:
                values = results[name].block().values.to("cpu", torch.float64)
                mean = values.sum(0) / len(systems[0])
                if not bool(torch.isfinite(mean).all()):
                    raise DataError(
                        f"{structures.origin(k)}: the model gives no number for '{name}'"
                    )
                found[name].append(mean.numpy())
    return (
        None if uncertainty is None else np.concatenate(found[uncertainty]),
        None if features is None else np.stack(found[features]),
    )


def _check_elements(model: AtomisticModel, structures: StructureStore) -> None:
    known = model.capabilities().atomic_types
    unknown = sorted(set(structures.elements) - set(known))
    if unknown:
        raise DataError(
            f"{structures.origin(structures.first_with(unknown))}: the model does not know {symbols(unknown)} "
            f"(it knows {symbols(known)})"
        )


def _listed(names: list[str]) -> str:
    return "it has " + ", ".join(names) if names else "it has none"
