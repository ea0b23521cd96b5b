"""Reading files of structures: anything ASE reads. A file is read once for all of its keys.

A reader that a component brings is a function ``(path, where) -> list[Frame]`` that raises
DataError, its message beginning with ``where``, for a file it cannot read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atomtrain.errors import DataError

BUILTIN = ("ase",)


@dataclass
class Frame:
    """One structure of a file with all that the file says of it.

    ``numbers [n]`` int64, ``positions [n, 3]`` and ``cell [3, 3]`` float64 (rows are vectors),
    ``pbc [3]`` bool; ``per_atom`` arrays lead with ``n``.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    per_structure: dict[str, Any]
    per_atom: dict[str, np.ndarray]

    def find(self, key: str) -> Any:
        """The value under ``key``, or None."""
        value = self.per_structure.get(key)
        return self.per_atom.get(key) if value is None else value

    @property
    def keys(self) -> set[str]:
        """All keys."""
        return {*self.per_structure, *self.per_atom}


class Files:
    """The files of a data set, each read at most once."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], list[Frame]] = {}

    def frames(self, path: str, reader: str | None, where: str) -> list[Frame]:
        """All frames of a file. ``where`` begins the message if it cannot be read (DataError)."""
        reader = reader or "ase"
        if (path, reader) not in self._read:
            frames = _reader(reader, where)(path, where)
            if not frames:
                raise DataError(f"{where}: '{path}' holds no structures")
            self._read[path, reader] = frames
        return self._read[path, reader]


def _reader(name: str, where: str) -> Callable[[str, str], list[Frame]]:
    if name == "ase":
        return read_ase
    from atomtrain.contract import components

    found = components("register_dataset_readers")
    if name not in found:
        known = ", ".join([*BUILTIN, *found])
        raise DataError(f"{where}: there is no reader '{name}' (there are: {known})")
    reader: Callable[[str, str], list[Frame]] = found[name].load()
    return reader


def read_ase(path: str, where: str) -> list[Frame]:
    """Frames of any file ASE reads; the format follows from the name or the content."""
    if not Path(path).is_file():
        what = "is a directory" if Path(path).is_dir() else "does not exist"
        raise DataError(f"{where}: the file '{path}' {what} (working directory: {Path.cwd()})")
    import ase.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ASE's own remarks on formats
            atoms = ase.io.read(path, index=":")
    except Exception as error:  # every format fails in its own way
        raise DataError(
            f"{where}: ASE cannot read '{path}': {_first_line(error)}. Is it a file of "
            "structures (extended xyz, CIF, ASE database, ...)?"
        ) from error
    frames = []
    for one in atoms:
        per_structure = dict(one.info)
        per_atom = {k: v for k, v in one.arrays.items() if k not in ("numbers", "positions")}
        if one.calc is not None:
            for key, value in one.calc.results.items():
                value_array = np.asarray(value)
                if value_array.ndim and len(value_array) == len(one) and key not in ("stress",):
                    per_atom[key] = value_array
                else:
                    per_structure[key] = value
        frames.append(
            Frame(
                one.numbers.astype(np.int64),
                one.positions.astype(np.float64),
                np.asarray(one.cell.array, dtype=np.float64),
                np.asarray(one.pbc, dtype=bool),
                per_structure,
                per_atom,
            )
        )
    return frames


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
