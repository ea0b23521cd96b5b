"""What can be asked of the dynamics: the arguments in the options and of the command."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from atomtrain.errors import OptionsError
from atomtrain.sections import Section

_FEMTOSECONDS = {"fs": 1.0, "ps": 1e3, "ns": 1e6}
_LIGHTEST = ((2.5, 0.5), (21.0, 1.0))
"""masses (u) up to which so many femtoseconds are a step"""
_HEAVY = 2.0


def _duration(unit: str) -> Callable[[Any], Any]:
    """A validator: ``"5 ps"`` as a number of ``unit``; numbers are in that unit already."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"\s*([0-9.]+(?:e[-+]?[0-9]+)?)\s*(fs|ps|ns)\s*", value, re.IGNORECASE)
        try:
            return float(found[1]) * _FEMTOSECONDS[found[2].lower()] / _FEMTOSECONDS[unit]  # type: ignore[index]
        except (TypeError, ValueError):
            raise ValueError(
                f"'{value}' is no time; write a number of {unit}, or one with its unit, as in '500 fs'"
            ) from None

    return read


Picoseconds = Annotated[float, BeforeValidator(_duration("ps"), json_schema_input_type=float | str)]
Femtoseconds = Annotated[
    float, BeforeValidator(_duration("fs"), json_schema_input_type=float | str)
]


class Settings(Section):
    """How the dynamics are made."""

    temperature: float = Field(300.0, gt=0)
    """Temperature in K."""
    time: Picoseconds = Field(5.0, gt=0)
    """How long each run is: ``5 ps``, ``500 fs``, or a number of ps. What settles it comes before."""
    starts: int = Field(5, ge=1)
    """How many runs, from frames evenly taken from the data."""
    timestep: Femtoseconds | None = Field(None, gt=0)
    """A step, in fs; absent: 0.5 with hydrogen, 1 with elements up to neon, 2 without."""
    ensemble: Literal["nve", "langevin"] = "nve"
    """``nve``: at constant energy, which shows whether energy stays; ``langevin``: with a thermostat."""
    settle: Picoseconds = Field(0.5, ge=0)
    """For how long Langevin dynamics bring each start to the temperature, in ps."""
    repeat: int = Field(1, ge=1)
    """How often the cells of periodic structures are repeated, along each of their vectors."""
    seed: int | None = Field(None, ge=0)
    """Of velocities and thermostat; absent: that of the training, or 0."""
    variant: str | None = None
    """Which energy of a model that has several: ``pbe`` for ``energy/pbe``."""

    def step(self, lightest: float) -> float:
        """The time step in fs, where the lightest atom has this mass (u)."""
        return usual_step(lightest) if self.timestep is None else self.timestep


def usual_step(lightest: float) -> float:
    """The time step, in fs, that resolves the vibrations of atoms of this mass (u)."""
    return next((step for mass, step in _LIGHTEST if lightest < mass), _HEAVY)


def check_variant(energies: Sequence[str], variant: str | None, what: str) -> None:
    """Raise OptionsError unless one of ``energies`` (names of outputs) is meant."""
    known = ", ".join(name.removeprefix("energy/") for name in energies if "/" in name) or "none"
    if variant is not None and f"energy/{variant}" not in energies:
        raise OptionsError(f"variant: {what} has no 'energy/{variant}'; its variants are {known}")
    if variant is None and "energy" not in energies and len(energies) > 1:
        raise OptionsError(f"variant: {what} has several energies; say which of {known}")
