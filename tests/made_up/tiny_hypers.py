"""Hypers of :mod:`tiny_arch`, and some with a fault."""

from pydantic import BaseModel

from atomtrain.options import Section


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
