"""Reading with dpdata: what it gives as frames with an account, its failures as sentences.

dpdata's own data sets turn cells, sort atoms and want all structures of one composition; so formats are
asked for the numbers as they have them, one structure after the other.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dpdata
import numpy as np
from ase.data import atomic_numbers
from dpdata.data_type import Axis
from dpdata.system import LabeledSystem, load_format

from atomtrain.data import Frame
from atomtrain.data.readers import Account, Frames, Quantity
from atomtrain.errors import DataError, did_you_mean
from atomtrain_dpdata.formats import ALIASES, ELSEWHERE, FORMATS, Format, guessed
from atomtrain_dpdata.run import Run, Unreadable

_KEYS = {"energies": "energy", "forces": "forces", "virials": "virial"}
_UNITS = {"energy": "eV", "free_energy": "eV", "forces": "eV/angstrom", "virial": "eV"}


def read(path: str, where: str, format: str = "") -> Frames:
    """Frames of any format in :data:`~.formats.FORMATS`, in eV and angstrom; without ``format``: guessed.

    Raises DataError where the file cannot be read, or dpdata is known to read it wrongly.
    """
    run = Run(Path(path))
    name = ""
    try:
        name = _named(format, path)
        known = FORMATS[name]
        run.account = Account(name, f"dpdata {dpdata.__version__}", length_unit="angstrom")
        for remedy in known.before:
            remedy(run)
        _load(run, name, known)
        for remedy in known.after:
            remedy(run)
    except Unreadable as error:
        said = f" ({name})" if name else ""
        raise DataError(f"{where}: '{path}'{said} {error}") from error.__cause__
    _account(run, known)
    return Frames(run.frames, run.account)


def _named(format: str, path: str) -> str:
    """dpdata's name of the format. Raises Unreadable."""
    if format:
        name = ALIASES.get(format.lower(), format.lower())
        if name in ELSEWHERE:
            raise Unreadable(f"is not read as '{format}': {ELSEWHERE[name]}")
        if name not in FORMATS:
            raise Unreadable(
                f"cannot be read as '{format}'{did_you_mean(name, list(FORMATS))} (formats of dpdata that are "
                f"read here: {', '.join(FORMATS)})"
            )
        return name
    name = guessed(Path(path))
    if not name:
        there = "" if Path(path).exists() else " (there is no such file or folder)"
        raise Unreadable(
            f"is of no format of dpdata that it could be told by{there}; say which with format: "
            f"{', '.join(FORMATS)}"
        )
    return name


def _load(run: Run, name: str, known: Format) -> None:
    """Fill ``run.frames`` with what dpdata reads. Raises Unreadable."""
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(record=True) as said, contextlib.redirect_stdout(printed):
            warnings.simplefilter("always")
            for data, unconverged in _systems(run.path, name, known):
                start = len(run.frames)
                run.account.types |= _has_types(data)
                run.frames += _frames(data)
                run.account.unconverged += [start + k for k in unconverged]
    except Unreadable:
        raise
    except FileNotFoundError as error:
        lacking = f" (there is no '{error.filename}')" if error.filename else ""
        raise Unreadable(f"cannot be read: it should be {known.path}{lacking}") from error
    except Exception as error:  # every format fails in its own way
        raise Unreadable(
            f"cannot be read by dpdata: it should be {known.path}. Something is missing in it, cut off, or "
            "written by another version of the code than dpdata knows; write it as extended xyz"
        ) from error
    for one in said:
        text = " ".join(str(one.message).split())
        note = f"dpdata says: {text}"
        if note not in run.account.notes and not issubclass(one.category, DeprecationWarning):
            run.account.notes.append(note)
    if not run.frames:
        remark = " ".join(printed.getvalue().split())
        remark = f"; dpdata says: {remark}" if remark else ""
        raise Unreadable(
            f"has nothing that dpdata reads: it should be {known.path}, of a calculation that converged{remark}"
        )


def _systems(path: Path, name: str, known: Format) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Structures of one composition at a time, as dpdata has them, and which did not converge."""
    format = load_format(name)
    place: Any = str(path)
    if name == "dftbplus":
        place = (str(path / "dftb_in.hsd"), str(path / "detailed.out"))
    if name == "deepmd/npy/mixed":
        for folder in format.from_multi_systems(place):
            labels = any(Path(folder).glob("set.*/energy.npy"))
            read = format.from_labeled_system_mix if labels else format.from_system_mix
            yield from ((data, []) for data in _listed(read(folder)))
        return
    if name == "deepmd/hdf5":
        yield from ((data, []) for data in _groups(format, place) if data)
        return
    if not known.labels or _no_energies(path, name):
        yield from ((data, []) for data in _listed(format.from_system(place)))
        return
    if name == "pwmat/movement":
        every = format.from_labeled_system(place, convergence_check=False)
        with warnings.catch_warnings():  # of what it leaves out
            warnings.simplefilter("ignore")
            good = format.from_labeled_system(place, convergence_check=True)
        yield every, _lacking(every, good)
        return
    yield from ((data, []) for data in _listed(format.from_labeled_system(place)))


def _groups(format: Any, place: str) -> Iterator[dict[str, Any]]:
    """The systems of an HDF5 file, or of a group in it: itself, or those below it by name."""
    import h5py

    name, _, group = place.partition("#")
    with h5py.File(name, "r") as file:
        here = file[group] if group else file
        below = [here] if "type.raw" in here else [here[key] for key in sorted(here)]
        for one in below:
            labels = any("energy.npy" in one[key] for key in one if key.startswith("set."))
            yield (format.from_labeled_system if labels else format.from_system)(one)


def _no_energies(path: Path, name: str) -> bool:
    """Whether a folder of DeePMD-kit has structures alone."""
    there = {"deepmd/npy": "set.*/energy.npy", "deepmd/raw": "energy.raw"}.get(name)
    return there is not None and not any(path.glob(there))


def _listed(data: Any) -> list[dict[str, Any]]:
    return [one for one in (data if isinstance(data, list | tuple) else [data]) if one]


def _lacking(every: dict[str, Any], some: dict[str, Any]) -> list[int]:
    """Which of all structures are not among some of them, in the same order."""
    lacking, next_ = [], 0
    keys = ("coords", "energies", "forces")
    for k in range(len(every["coords"])):
        there = next_ < len(some["coords"])
        if there and all(np.array_equal(every[key][k], some[key][next_]) for key in keys):
            next_ += 1
        else:
            lacking.append(k)
    return lacking


def _frames(data: dict[str, Any]) -> Iterator[Frame]:
    """The structures of a dictionary of dpdata's."""
    coords = np.asarray(data["coords"], dtype=np.float64)
    if coords.size == 0:
        return
    count, n_atoms = coords.shape[:2]
    numbers = _elements(data)
    periodic = not data.get("nopbc", False)
    cells = np.asarray(data["cells"], dtype=np.float64).reshape(-1, 3, 3)
    if len(cells) != count or len(numbers) != n_atoms:
        raise Unreadable(
            f"does not fit together: there are {count} structures of {len(numbers)} atoms, but {len(cells)} "
            f"cells, and positions of {n_atoms} atoms"
        )
    values = {
        _KEYS.get(name, name): np.asarray(data[name])
        for name in _names_of_values()
        if np.size(data.get(name, ()))
    }
    for key, value in values.items():
        if len(value) != count:
            raise Unreadable(
                f"does not fit together: it has {count} structures, but {key} of {len(value)}"
            )
    move = data.get("move")
    for k in range(count):
        mine = {key: value[k] for key, value in values.items()}
        yield Frame(
            numbers.copy(),
            coords[k],
            cells[k] if periodic else np.zeros((3, 3)),
            np.full(3, periodic),
            {key: value for key, value in mine.items() if np.shape(value)[:1] != (n_atoms,)
             or key == "virial"},
            {key: value for key, value in mine.items() if np.shape(value)[:1] == (n_atoms,)
             and key != "virial"},
            None if move is None else ~np.asarray(move[k], dtype=bool).reshape(n_atoms, 3),
        )  # fmt: skip


def _names_of_values() -> list[str]:
    """What dpdata has for each structure beside the atoms and their cell."""
    atoms = ("cells", "coords", "move", "real_atom_types")
    return [
        one.name
        for one in LabeledSystem.DTYPES
        if one.shape and one.shape[0] == Axis.NFRAMES and one.name not in atoms
    ]


def _has_types(data: dict[str, Any]) -> bool:
    """Whether dpdata has made up names: type_map.raw is not there."""
    return all(str(name).startswith("Type_") for name in data["atom_names"])


def _elements(data: dict[str, Any]) -> np.ndarray:
    """Atomic numbers, or numbers of types where there are no names of elements."""
    names = [str(name) for name in data["atom_names"]]
    types = np.asarray(data["atom_types"], dtype=np.int64)
    if _has_types(data):
        return types
    unknown = [name for k, name in enumerate(names) if name not in atomic_numbers and k in types]
    if unknown:
        raise Unreadable(
            f"has atoms called {', '.join(unknown)}, which are no elements; give them the symbols of elements"
        )
    return np.array([atomic_numbers.get(name, 0) for name in names], dtype=np.int64)[types]


def _account(run: Run, known: Format) -> None:
    account, keys = run.account, set().union(*(frame.keys for frame in run.frames))
    names = {"energy": known.energy}
    account.quantities = {
        key: Quantity(names.get(key, ""), unit) for key, unit in _UNITS.items() if key in keys
    }
