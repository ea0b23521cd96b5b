"""Hypers of :mod:`tiny_arch`, and some with a fault."""

from pydantic import BaseModel

from atomtrain.options import BaseTrainerHypers, Section


class Hypers(Section):
    fault: str = ""
    """Name of the subclass with the fault; empty for the sound model."""


class Undocumented(Section):
    fault: str = ""
    """Name of the subclass with the fault; empty for the sound model."""
    width: int = 3


class WithoutDefault(Section):
    fault: str
    """Name of the subclass with the fault; empty for the sound model."""


class Lax(BaseModel, use_attribute_docstrings=True):
    fault: str = ""
    """Name of the subclass with the fault; empty for the sound model."""


class Fit(BaseTrainerHypers):
    ridge: list[float] = [1e-6, 1e-4, 1e-2]
    """What squares of weights are multiplied by."""
    fault: str = ""
    """What is wrong with the trainer; empty for the sound one."""
