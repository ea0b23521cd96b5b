"""Structures for FitSNAP, ``.json``: one or several in a file, units by words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from atomtrain.data.readers.account import Account, Frames, Quantity
from atomtrain.data.readers.content import opened
from atomtrain.data.readers.units import BAR, BOHR, HARTREE, KCAL_PER_MOL, RYDBERG
from atomtrain.errors import DataError, did_you_mean
from atomtrain.frame import Frame

_LENGTHS = {"angstrom": 1.0, "bohr": BOHR}
_ENERGIES = {
    "electronvolt": 1.0,
    "ev": 1.0,
    "hartree": HARTREE,
    "rydberg": RYDBERG,
    "kcal/mol": KCAL_PER_MOL,
}
_FORCES = {
    "electronvoltperangstrom": 1.0,
    "ev/angstrom": 1.0,
    "hartreeperbohr": HARTREE / BOHR,
    "rydbergperbohr": RYDBERG / BOHR,
}
_STRESSES = {"bar": BAR, "kbar": 1e3 * BAR, "kb": 1e3 * BAR, "gpa": 1e4 * BAR, "pascal": 1e-5 * BAR}
_STYLES = {
    "LatticeStyle": (_LENGTHS, "angstrom"),
    "PositionsStyle": (_LENGTHS, "angstrom"),
    "EnergyStyle": (_ENERGIES, "electronvolt"),
    "ForcesStyle": (_FORCES, "electronvoltperangstrom"),
    "StressStyle": (_STRESSES, "bar"),
}
"""the words FitSNAP has for units, and the one it takes where a file has none"""


def recognises(path: str, head: bytes) -> bool:
    """Whether it is JSON with a data set; a comment line may be before it."""
    return b'"Dataset"' in head and _body(head.decode(errors="replace")).startswith("{")


def read(path: str, where: str) -> Frames:
    """The structures of a file, in eV and angstrom. Raises DataError where one cannot be read."""
    with opened(path) as file:
        text = file.read().decode(errors="replace")
    here = f"{where}: '{path}' (fitsnap-json)"
    try:
        data = json.loads(_body(text))["Dataset"]
        structures = data["Data"]
    except json.JSONDecodeError as error:
        line = error.lineno + text.count("\n", 0, len(text) - len(_body(text)))
        raise DataError(f"{here}: line {line} is not JSON; copy or write the file again") from None
    except (KeyError, TypeError):
        raise DataError(f"{here}: it has no list Dataset: Data; write it again") from None
    factors, notes = _units(data, here)
    frames = Frames()
    for number, structure in enumerate(structures):
        try:
            frames.append(_frame(structure, factors))
        except KeyError as error:
            raise DataError(f"{here}: structure {number} has no {error.args[0]}") from None
        except (TypeError, ValueError, AttributeError):
            raise DataError(
                f"{here}: structure {number} does not fit together: it needs Lattice (3 x 3), Positions and "
                "Forces (3 for each atom), AtomTypes (symbols), Energy, Stress (3 x 3)"
            ) from None
    keys = set().union(*(frame.keys for frame in frames))
    names = {"energy": "Energy", "forces": "Forces", "stress": "Stress"}
    said = {
        "energy": Quantity("Energy", "eV", notes["EnergyStyle"]),
        "forces": Quantity("Forces", "eV/angstrom", notes["ForcesStyle"]),
        "stress": Quantity(
            "Stress",
            "eV/angstrom^3",
            f"{notes['StressStyle']}, positive under compression in the file",
        ),
    }
    frames.account = Account(
        "fitsnap-json",
        "atomtrain",
        len(structures),
        {key: said[key] for key in names if key in keys},
        "angstrom",
    )
    return frames


def _body(text: str) -> str:
    """The JSON in a file: without the comment that FitSNAP's files begin with."""
    text = text.lstrip()
    while text.startswith("#"):
        text = text.partition("\n")[2].lstrip()
    return text


def _units(data: dict[str, Any], here: str) -> tuple[dict[str, float], dict[str, str]]:
    """The factor to eV and angstrom of each style, and what to say of it."""
    factors, notes = {}, {}
    for style, (known, default) in _STYLES.items():
        word = str(data.get(style, default))
        if word.lower() not in known:
            raise DataError(
                f"{here}: {style} '{word}' is not known{did_you_mean(word.lower(), list(known))} (known: "
                f"{', '.join(known)})"
            )
        factors[style] = known[word.lower()]
        notes[style] = f"from {word}" if style in data else f"from {word}, which was assumed"
    if str(data.get("AtomTypeStyle", "chemicalsymbol")) != "chemicalsymbol":
        raise DataError(f"{here}: AtomTypeStyle must be chemicalsymbol; write symbols of elements")
    return factors, notes


def _frame(data: dict[str, Any], factors: dict[str, float]) -> Frame:
    symbols = data["AtomTypes"]
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise ValueError(unknown[0])
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)
    cell = np.array(data["Lattice"], dtype=np.float64).reshape(3, 3) * factors["LatticeStyle"]
    positions = np.array(data["Positions"], dtype=np.float64) * factors["PositionsStyle"]
    per_structure: dict[str, Any] = {}
    per_atom: dict[str, np.ndarray] = {}
    if "Energy" in data:
        per_structure["energy"] = float(data["Energy"]) * factors["EnergyStyle"]
    if "Stress" in data:
        stress = np.array(data["Stress"], dtype=np.float64).reshape(3, 3)
        per_structure["stress"] = -stress * factors["StressStyle"]
    if "Forces" in data:
        forces = np.array(data["Forces"], dtype=np.float64) * factors["ForcesStyle"]
        per_atom["forces"] = forces.reshape(len(numbers), 3)
    return Frame(
        numbers,
        positions.reshape(len(numbers), 3),
        cell,
        np.ones(3, dtype=bool),
        per_structure,
        per_atom,
    )
