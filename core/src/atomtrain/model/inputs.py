"""The inputs that models take beside atoms: metatomic's names for them, and all those of a model."""

from __future__ import annotations

from torch import nn

from atomtrain.errors import PluginError
from atomtrain.model.base import ExtraInput, Model
from atomtrain.sections.names import bad_target_name

STANDARD: dict[str, ExtraInput] = {
    "charge": ExtraInput(unit="e", examples=(0.0, 1.0, -1.0)),
    "spin_multiplicity": ExtraInput(examples=(1.0, 3.0)),
}
"""metatomic's inputs of whole structures by name: total charge, and 2 S + 1 (1 is a singlet)."""


def inputs_of(model: nn.Module) -> dict[str, ExtraInput]:
    """What a model and all models inside it take beside atoms, by name.

    Raises PluginError for a name that metatomic does not know, and where two of the models differ on one.
    """
    found: dict[str, ExtraInput] = {}
    for module in model.modules():
        if not isinstance(module, Model):
            continue
        where = f"{type(module).__name__}.extra_inputs"
        for name, one in module.extra_inputs().items():
            wrong = bad_target_name(name)
            if wrong is not None:
                raise PluginError(f"{where}: {wrong}")
            other = found.setdefault(name, one)
            if (other.per_atom, other.width, other.unit) != (one.per_atom, one.width, one.unit):
                raise PluginError(f"{where}: another model around this one takes another '{name}'")
    return found
