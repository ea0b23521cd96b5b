"""Arrays of numpy, ``.npz``, of many structures of one molecule: the layouts of rMD17 and sGDML."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from atomtrain.data.readers.account import Account, Frames, Quantity
from atomtrain.data.readers.content import opened
from atomtrain.data.readers.units import BOHR, HARTREE, KCAL_PER_MOL, KJ_PER_MOL
from atomtrain.errors import DataError
from atomtrain.frame import Frame

_LENGTHS = {"ang": 1.0, "a": 1.0, "angstrom": 1.0, "bohr": BOHR, "au": BOHR, "nm": 10.0}
_ENERGIES = {
    "kcal/mol": KCAL_PER_MOL,
    "kj/mol": KJ_PER_MOL,
    "ev": 1.0,
    "mev": 1e-3,
    "hartree": HARTREE,
    "ha": HARTREE,
    "au": HARTREE,
}


@dataclass(frozen=True)
class _Layout:
    """Names of the arrays; ``energy_unit``: by convention, where the file says nothing."""

    name: str
    numbers: str
    positions: str
    energies: str
    forces: str
    energy_unit: str = ""
    length_unit: str = ""


_RMD17 = _Layout("rMD17", "nuclear_charges", "coords", "energies", "forces", "kcal/mol", "Ang")
_SGDML = _Layout("sGDML", "z", "R", "E", "F")
_LAYOUTS = (_RMD17, _SGDML)
_NOT_LABELS = {"type", "name", "theory", "md5", "r_unit", "e_unit", "lattice", "old_indices"}


def recognises(path: str, head: bytes) -> bool:
    """Whether it is a zip archive of arrays."""
    return head.startswith(b"PK\x03\x04") and path.lower().endswith(".npz")


def read(path: str, where: str) -> Frames:
    """The structures of a file, in eV and angstrom where units are known. Raises DataError."""
    here = f"{where}: '{path}' (npz)"
    try:
        with opened(path) as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, OSError, EOFError):
        raise DataError(f"{here} is cut off or damaged; copy or download it again") from None
    except ValueError:
        raise DataError(
            f"{here} has arrays of Python objects, which are not read as they may run code; write plain "
            "arrays, or the structures as extended xyz"
        ) from None
    layout = next((k for k in _LAYOUTS if {k.numbers, k.positions} <= arrays.keys()), None)
    if layout is None:
        known = "; ".join(
            f"{k.name}: {k.numbers}, {k.positions}, {k.energies}, {k.forces}" for k in _LAYOUTS
        )
        raise DataError(
            f"{here} has the arrays {', '.join(sorted(arrays)) or '(none)'}, a layout that is not known "
            f"(known are {known}); write its structures as extended xyz"
        )
    return _frames(arrays, layout, f"{where}: '{path}' (npz of {layout.name})")


def _frames(arrays: dict[str, np.ndarray], layout: _Layout, here: str) -> Frames:
    numbers = np.asarray(arrays[layout.numbers])
    positions = np.asarray(arrays[layout.positions], dtype=np.float64)
    if numbers.ndim != 1 or positions.shape[1:] != (len(numbers), 3):
        raise DataError(
            f"{here}: {layout.numbers} must be [atoms] and {layout.positions} [structures, atoms, 3], but "
            f"they are {list(numbers.shape)} and {list(positions.shape)}; molecules of several kinds go "
            "into files of their own"
        )
    count, n_atoms = len(positions), len(numbers)
    length, energy = _units(arrays, layout, here)
    per_frame = {
        "energy": _rows(arrays, layout.energies, (count,), energy.factor, here),
        "forces": _rows(
            arrays, layout.forces, (count, n_atoms, 3), energy.factor / length.factor, here
        ),
    }
    known = {layout.numbers, layout.positions, layout.energies, layout.forces, *_NOT_LABELS}
    for name, array in arrays.items():
        if name not in known and array.shape[:1] == (count,) and array.dtype.kind in "iuf":
            per_frame[name] = array
    lattice = arrays.get("lattice")
    cell = np.zeros((3, 3))
    if lattice is not None:  # its columns are the vectors
        cell = np.asarray(lattice, dtype=np.float64).reshape(3, 3).T * length.factor
    frames = Frames(
        Frame(
            numbers.astype(np.int64),
            positions[k] * length.factor,
            cell,
            np.full(3, lattice is not None),
            {key: array[k] for key, array in _present(per_frame) if array.shape[1:2] != (n_atoms,)},
            {key: array[k] for key, array in _present(per_frame) if array.shape[1:2] == (n_atoms,)},
        )
        for k in range(count)
    )
    gradient = f"{energy.unit}/{length.unit}" if energy.unit and length.unit else ""
    told = {
        "energy": Quantity(layout.energies, energy.unit, energy.note),
        "forces": Quantity(layout.forces, gradient),
    }
    frames.account = Account(
        "npz",
        f"atomtrain, layout of {layout.name}",
        count,
        {key: told[key] for key, _ in _present(per_frame) if key in told},
        length.unit,
    )
    if not (energy.unit and length.unit):
        frames.account.usual_units = "angstrom and kcal/mol"
    return frames


@dataclass(frozen=True)
class _Unit:
    """``unit`` the values have times ``factor`` (empty: it is not known); ``note`` on where it is from."""

    unit: str = ""
    factor: float = 1.0
    note: str = ""


def _units(arrays: dict[str, np.ndarray], layout: _Layout, here: str) -> tuple[_Unit, _Unit]:
    """Of lengths and of energies."""
    asked = (
        ("r_unit", layout.length_unit, _LENGTHS, "angstrom"),
        ("e_unit", layout.energy_unit, _ENERGIES, "eV"),
    )
    found = []
    for name, convention, known, ours in asked:
        word = str(arrays[name]) if name in arrays else convention
        if not word:
            found.append(_Unit())
            continue
        if word.lower() not in known:
            raise DataError(
                f"{here}: its unit {name} is '{word}', which is not known (known: {', '.join(known)})"
            )
        said = "as the file says" if name in arrays else "the unit of this layout"
        found.append(_Unit(ours, known[word.lower()], f"from {word}, {said}"))
    return found[0], found[1]


def _rows(
    arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...], factor: float, here: str
) -> np.ndarray | None:
    if name not in arrays:
        return None
    array = np.asarray(arrays[name], dtype=np.float64)
    if array.size != np.prod(shape) or len(array) != shape[0]:
        raise DataError(
            f"{here}: {name} has shape {list(array.shape)}, but should have {list(shape)}"
        )
    return array.reshape(shape) * factor


def _present(arrays: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    return [(key, array) for key, array in arrays.items() if array is not None]
