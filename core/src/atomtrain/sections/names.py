"""Names a user may write: targets, chemical elements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atomtrain.errors import did_you_mean

STANDARD_TARGETS = (
    "energy",
    "energy_ensemble",
    "energy_uncertainty",
    "feature",
    "non_conservative_force",
    "non_conservative_stress",
    "position",
    "momentum",
    "velocity",
    "mass",
    "charge",
    "spin_multiplicity",
    "heat_flux",
)
"""metatomic's standard outputs. Any other target is called ``<domain>::<name>``."""

_ELEMENTS = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br
Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho
Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es
Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS = tuple(_ELEMENTS.split())
"""chemical symbols in the order of their numbers"""
_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS, start=1)}


def base_name(name: str) -> str:
    """The name without its variant: what decides the quantity (``energy/pbe`` -> ``energy``)."""
    return name.partition("/")[0]


def bad_target_name(name: Any) -> str | None:
    """What is wrong with a target's name, or None."""
    if not isinstance(name, str):
        return f"a target's name must be text, got {name!r}"
    base, slash, variant = name.partition("/")
    if slash and not variant:
        return f"'{name}' ends in '/': a variant is written '{base}/pbe'"
    if "::" in base:
        if all(base.split("::")) and "::" not in variant and ":" not in name.replace("::", ""):
            return None
        return f"'{name}' is not of the form '<domain>::<name>' or '<domain>::<name>/<variant>'"
    if base in STANDARD_TARGETS:
        return None
    hint = did_you_mean(base, STANDARD_TARGETS).partition("(")[0].strip()
    return (
        f"'{name}' is not a standard name of metatomic{hint}"
        f"{'' if hint else ';'} a quantity of your own is called '<domain>::<name>', "
        f"for instance 'mtt::{base}'"
    )


def atomic_number(name: Any) -> int:
    """Atomic number of ``8``, ``"8"`` or ``"O"``. Raises ValueError with a message for the user.

    YAML reads the symbol of nobelium, ``No``, as false.
    """
    if name is False:
        return _NUMBERS["No"]
    if isinstance(name, str):
        if name in _NUMBERS:
            return _NUMBERS[name]
        name = int(name) if name.isdigit() else name
    if isinstance(name, int) and not isinstance(name, bool) and name >= 1:
        return name
    raise ValueError(f"'{name}' is neither an atomic number nor a chemical symbol")


def is_symbol_of(name: Any, number: int) -> bool:
    """Whether a key of the options is the symbol of this element."""
    return _NUMBERS.get("No" if name is False else name) == number


def symbols(numbers: Iterable[int], between: str = ", ") -> str:
    """Chemical symbols of atomic types, for messages: ``H, C, O``; numbers where there is none."""
    n = len(SYMBOLS)
    return between.join(SYMBOLS[k - 1] if k <= n else str(k) for k in numbers)
