"""A data set on disk: one flat array for each quantity and an index, read in pieces.

A folder with

- ``index.json``: format and version, how many structures and atoms, elements, what each quantity is, the files
  that the structures came from, what was said of them when they were read, a fingerprint;
- ``offsets.npy [n + 1]`` int64: structure k has the atoms ``offsets[k]:offsets[k + 1]``;
- ``numbers.npy [n_atoms]`` uint8, ``positions.npy [n_atoms, 3]``, ``cells.npy [n, 3, 3]``, ``pbc.npy [n, 3]`` bool,
  ``origins.npy [n, 2]`` int32 (which of the files, which frame of it), ``fixed.npy [n_atoms, 3]`` bool;
- ``q<k>.npy`` for each quantity, one row for each atom or structure, and ``q<k>.there.npy [n]`` bool where not every
  structure has it. Text is numbered: the index has the words.

All are plain arrays of numpy's format, in the precision that the files had. Cells, periodicity, constraints and masks
that would say nothing are not there. A folder is written whole or not at all (:mod:`.store_writer`), and is never
changed afterwards; a file that changes under a reader is an error.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from atomtrain.errors import DataError
from atomtrain.frame import Frame

FORMAT, VERSION = "atomtrain-store", 1
INDEX = "index.json"
GAP = 65536
"""bytes that are rather read than skipped"""
PIECE = 1 << 24
"""bytes that are read or copied at once"""


def is_stored(path: Path | str) -> bool:
    """Whether a folder is a data set of this format."""
    return (Path(path) / INDEX).is_file() and (Path(path) / "offsets.npy").is_file()


class Array:
    """An array of a file, whose rows are read where they are wanted; it is never in memory as a whole.

    Raises DataError, beginning with ``where``, if the file is not there, is cut off or changes.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._path, self._where, self._lock = path, where, threading.Lock()
        try:
            self._file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115
            version = np.lib.format.read_magic(self._file)
            if version != (1, 0):
                raise ValueError(f"version {version} of numpy's format")
            shape, _, self.dtype = np.lib.format.read_array_header_1_0(self._file)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{where}: '{path}' cannot be read ({error}); {_AGAIN}") from None
        self._start = self._file.tell()
        self.length, self.tail = int(shape[0]), tuple(int(n) for n in shape[1:])
        self.width = self.dtype.itemsize * int(np.prod(self.tail, dtype=np.int64))
        self._stamp = self._state()
        size = self._start + self.length * self.width
        if self._stamp[0] != size:
            raise DataError(
                f"{where}: '{path}' has {self._stamp[0]} bytes where its header announces {size}; {_AGAIN}"
            )

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start:stop``, ``[stop - start, *tail]``."""
        data = bytearray((stop - start) * self.width)
        view, done = memoryview(data), 0
        while done < len(data):
            n = self._read_into(view[done:], self._start + start * self.width + done)
            if n <= 0:
                break
            done += n
        if done < len(data) or self._state() != self._stamp:
            raise DataError(
                f"{self._where}: '{self._path}' changed while it was being read; a data set must stay as it is as "
                f"long as something reads it. {_AGAIN[0].upper()}{_AGAIN[1:]}, and start again with --restart auto"
            )
        return np.frombuffer(data, dtype=self.dtype).reshape(stop - start, *self.tail)

    def _read_into(self, view: memoryview, place: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [view], place)
        with self._lock:  # Windows: one place for all who read
            self._file.seek(place)
            return self._file.readinto(view) or 0  # type: ignore[attr-defined]

    def gather(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """The rows ``starts[k]:stops[k]`` for each k, one after the other; pieces that are close are read as one."""
        counts = stops - starts
        if not len(starts) or not counts.sum():
            return np.empty((0, *self.tail), dtype=self.dtype)
        order = np.argsort(starts, kind="stable")
        first, last = starts[order], stops[order]
        apart = first[1:] - last[:-1] > GAP // max(self.width, 1)
        pieces = first * self.width // PIECE  # nobody wants to read all for a few here and there
        breaks = 1 + np.flatnonzero(apart | (pieces[1:] != pieces[:-1]))
        found = np.empty((int(counts.sum()), *self.tail), dtype=self.dtype)
        places = np.cumsum(counts) - counts
        for part in np.split(np.arange(len(order)), breaks):
            base = int(first[part[0]])
            block = self.rows(base, int(last[part].max()))
            chosen, n = order[part], counts[order[part]]
            within = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
            found[np.repeat(places[chosen], n) + within] = block[
                np.repeat(starts[chosen] - base, n) + within
            ]
        return found


_AGAIN = "make the data set again (atomtrain convert)"


@dataclass(eq=False)
class StoredQuantity:
    """A quantity of a data set on disk.

    ``values``: its rows, of atoms (``per_atom``) or structures; ``there [n]``: which structures have it, None where
    all do; ``words`` of text, whose rows are numbers of them.
    """

    values: Array
    per_atom: bool
    words: list[str] | None
    there: np.ndarray | None


@dataclass(eq=False)
class Stored:
    """A data set on disk, opened. DataError, beginning with ``where``, unless it is whole."""

    path: str
    where: str
    index: dict[str, Any] = field(init=False)
    offsets: np.ndarray = field(init=False)
    """[n + 1] int64"""

    def __post_init__(self) -> None:
        folder = Path(self.path)
        try:
            self.index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            version = self.index["version"] if self.index["format"] == FORMAT else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.where}: '{folder / INDEX}' cannot be read ({error}); {_AGAIN}"
            ) from None
        if version != VERSION:
            raise DataError(
                f"{self.where}: '{self.path}' is of version {version} of its format, this atomtrain reads {VERSION}; "
                f"{_AGAIN}, or install the atomtrain that wrote it ({self.index.get('atomtrain_version')} or later)"
            )
        offsets = Array(folder / "offsets.npy", self.where)
        self.offsets = offsets.rows(0, offsets.length)
        self.numbers = Array(folder / "numbers.npy", self.where)
        self.positions = Array(folder / "positions.npy", self.where)
        self.origins = Array(folder / "origins.npy", self.where)
        self.cells, self.pbc, self.fixed = (
            Array(folder / f"{name}.npy", self.where)
            if (folder / f"{name}.npy").is_file()
            else None
            for name in ("cells", "pbc", "fixed")
        )
        self.quantities = {k: self._quantity(folder, q) for k, q in self._described().items()}
        n, atoms = len(self), int(self.offsets[-1])
        of_atoms = [self.numbers, self.positions, self.fixed]
        of_structures = [self.origins, self.cells, self.pbc]
        for q in self.quantities.values():
            (of_atoms if q.per_atom else of_structures).append(q.values)
        if any(a is not None and a.length != atoms for a in of_atoms) or any(
            a is not None and a.length != n for a in of_structures
        ):
            raise DataError(
                f"{self.where}: arrays of '{self.path}' have different lengths; {_AGAIN}"
            )

    def _described(self) -> dict[str, Any]:
        found: dict[str, Any] = self.index["quantities"]
        return found

    def _quantity(self, folder: Path, described: dict[str, Any]) -> StoredQuantity:
        path = folder / described["file"]
        there = None
        if described["masked"]:
            mask = Array(path.with_name(f"{path.stem}.there.npy"), self.where)
            there = mask.rows(0, mask.length)
        return StoredQuantity(
            Array(path, self.where), described["per_atom"], described["words"], there
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def bytes_per_atom(self) -> float:
        """How much there is on disk, over the number of atoms."""
        folder = Path(self.path)
        return sum(f.stat().st_size for f in folder.glob("*.npy")) / max(int(self.offsets[-1]), 1)

    @property
    def fingerprint(self) -> str:
        """A hash of all that there is."""
        return str(self.index["fingerprint"])

    def of_atoms(self, array: Array, structures: np.ndarray) -> np.ndarray:
        """Rows of the atoms of these structures, one structure after the other."""
        return array.gather(self.offsets[structures], self.offsets[structures + 1])

    def of_structures(self, array: Array, structures: np.ndarray) -> np.ndarray:
        """Rows of these structures."""
        return array.gather(structures, structures + 1)

    def frames(self, structures: np.ndarray) -> list[Frame]:
        """Some of the structures with all that there is of them."""
        n = len(structures)
        counts = self.offsets[structures + 1] - self.offsets[structures]
        bounds = np.concatenate([[0], np.cumsum(counts)]).tolist()
        numbers = self.of_atoms(self.numbers, structures).astype(np.int64)
        positions = self.of_atoms(self.positions, structures).astype(np.float64)
        cells, pbc = self.boxes(structures)
        fixed = None if self.fixed is None else self.of_atoms(self.fixed, structures)
        found = [
            Frame(numbers[a:b], positions[a:b], cells[k], pbc[k])
            for k, (a, b) in enumerate(pairwise(bounds))
        ]
        for frame, a, b in zip(found, bounds, bounds[1:], strict=False):
            if fixed is not None and fixed[a:b].any():
                frame.fixed = fixed[a:b]
        for key, q in self.quantities.items():
            there = np.ones(n, dtype=bool) if q.there is None else q.there[structures]
            if q.per_atom:
                values = self.of_atoms(q.values, structures)
                for k in np.flatnonzero(there).tolist():
                    found[k].per_atom[key] = values[bounds[k] : bounds[k + 1]]
                continue
            values = self.of_structures(q.values, structures)
            for k in np.flatnonzero(there).tolist():
                found[k].per_structure[key] = _plain(values[k], q.words)
        return found

    def boxes(self, structures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cells ``[n, 3, 3]`` float64 and periodicity ``[n, 3]`` bool."""
        n = len(structures)
        cells, pbc = np.zeros((n, 3, 3)), np.zeros((n, 3), dtype=bool)
        if self.cells is not None:
            cells = self.of_structures(self.cells, structures).astype(np.float64)
        if self.pbc is not None:
            pbc = self.of_structures(self.pbc, structures)
        return cells, pbc


def _plain(value: np.ndarray, words: list[str] | None) -> Any:
    """A row as a frame has it: text, a number, or an array."""
    if words is not None:
        return words[int(value)]
    return value.item() if value.ndim == 0 else value
