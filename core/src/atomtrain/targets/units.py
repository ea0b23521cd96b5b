"""Units as people write them: those metatomic knows, and some of pressure that it does not."""

from __future__ import annotations

_PRESSURES = {"kbar": ("GPa", 0.1), "mpa": ("GPa", 1e-3), "kpa": ("GPa", 1e-6)}


def conversion(unit: str, to: str) -> float:
    """The factor from ``unit`` to another (imports torch). ValueError where there is none."""
    from metatomic.torch import unit_conversion_factor

    unit, times = _PRESSURES.get(unit.strip().lower(), (unit, 1.0))
    to, over = _PRESSURES.get(to.strip().lower(), (to, 1.0))
    try:
        found = float(unit_conversion_factor(unit, to)) * times / over
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return 1.0 if abs(found - 1) < 1e-12 else found


def same_unit(unit: str, other: str) -> bool:
    """Whether two units are one, however they are written."""
    try:
        return abs(conversion(unit, other) - 1) < 1e-9
    except ValueError:
        return unit.strip().lower() == other.strip().lower()
