"""Writing a data set on disk (:mod:`.stored` describes it), some structures at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from atomtrain._version import __version__
from atomtrain.data.stored import FORMAT, INDEX, PIECE, VERSION
from atomtrain.frame import Frame

HEADER = 128
"""bytes before the numbers of an array, so that it can be written before its length is known"""
WORDS = 65536
"""different texts that a quantity may have"""


class _Growing:
    """An array that is written row by row, with a hash of its content.

    ``length`` rows so far; the numbers of a type that turns out too small are widened.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], tail: tuple[int, ...]) -> None:
        self.path, self.dtype, self.tail, self.length = path, dtype, tail, 0
        self._file: BinaryIO = open(path, "w+b")  # noqa: SIM115
        self._file.write(bytes(HEADER))

    def __del__(self) -> None:
        self._file.close()

    @property
    def _width(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.tail, dtype=np.int64))

    def add(self, values: np.ndarray) -> None:
        """Append rows ``[n, *tail]``."""
        wanted = np.result_type(self.dtype, values.dtype)
        if wanted != self.dtype:
            self._widen(wanted)
        self._file.write(np.ascontiguousarray(values, dtype=self.dtype).data.cast("B"))
        self.length += len(values)

    def skip(self, n: int) -> None:
        """Append ``n`` rows of zeros."""
        if n > 0:
            self._file.seek(n * self._width, os.SEEK_CUR)
            self._file.truncate()
            self.length += n

    def _pieces(self) -> Iterator[bytes]:
        self._file.seek(HEADER)
        while piece := self._file.read(PIECE // self.dtype.itemsize * self.dtype.itemsize):
            yield piece

    def _widen(self, dtype: np.dtype[Any]) -> None:
        wider = self.path.with_suffix(".wider")
        with open(wider, "w+b") as file:
            file.write(bytes(HEADER))
            for piece in self._pieces():
                file.write(np.frombuffer(piece, dtype=self.dtype).astype(dtype).data.cast("B"))
        self._file.close()
        os.replace(wider, self.path)
        self.dtype = dtype
        self._file = open(self.path, "r+b")  # noqa: SIM115
        self._file.seek(0, os.SEEK_END)

    def close(self) -> str:
        """Write the header; gives a hash of dtype, shape and numbers."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.length, *self.tail),
        }
        text = repr(header).encode()
        room = HEADER - 10
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little"))
        self._file.write(text.ljust(room - 1) + b"\n")
        digest = hashlib.blake2b(text, digest_size=16)
        for piece in self._pieces():
            digest.update(piece)
        self._file.close()
        return digest.hexdigest()


@dataclass
class _Quantity:
    """A quantity while it is written; ``there``: which structures have it, from the first that lacks it on."""

    name: str
    per_atom: bool
    array: _Growing
    words: dict[str, int] | None = None
    n_structures: int = 0
    there: _Growing | None = None


class StoreWriter:
    """Writes structures into a new folder, some at a time; nothing of them stays in memory.

    A quantity whose shape changes from structure to structure cannot be a flat array; it is left out, and
    ``left_out`` says why by its name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._n = self._n_atoms = 0
        self._n_written = 0
        self._elements: dict[int, int] = {}
        self._quantities: dict[str, _Quantity] = {}
        self.left_out: dict[str, str] = {}
        self._arrays: dict[str, _Growing] = {}
        self._files: list[str] = []
        self._offsets = _Growing(folder / "offsets.npy", np.dtype("<i8"), ())
        self._offsets.add(np.zeros(1, dtype=np.int64))

    @property
    def n_structures(self) -> int:
        """How many there are so far."""
        return self._n

    def add(self, frames: Sequence[Frame], file: str, first: int = 0) -> None:
        """Append the frames ``first``, ``first + 1``, ... of a ``file``."""
        if not frames:
            return
        if not self._files or self._files[-1] != file:
            self._files.append(file)
        counts = np.array([len(frame.numbers) for frame in frames], dtype=np.int64)
        numbers = np.concatenate([frame.numbers for frame in frames])
        for number in np.unique(numbers).tolist():
            self._elements[number] = self._elements.get(number, 0) + int((numbers == number).sum())
        origins = np.stack(
            [np.full(len(frames), len(self._files) - 1), np.arange(first, first + len(frames))], 1
        )
        n, atoms = len(frames), int(counts.sum())
        self._offsets.add(self._n_atoms + np.cumsum(counts))
        self._put("numbers", numbers.astype(np.uint8), self._n_atoms)
        self._put("positions", np.concatenate([f.positions for f in frames]), self._n_atoms)
        self._put("origins", origins.astype(np.int32), self._n)
        cells, pbc = np.stack([f.cell for f in frames]), np.stack([f.pbc for f in frames])
        if cells.any() or "cells" in self._arrays:
            self._put("cells", cells, self._n)
        if pbc.any() or "pbc" in self._arrays:
            self._put("pbc", pbc, self._n)
        if "fixed" in self._arrays or any(f.fixed is not None for f in frames):
            free = [
                np.zeros((len(f.numbers), 3), dtype=bool) if f.fixed is None else f.fixed
                for f in frames
            ]
            self._put("fixed", np.concatenate(free), self._n_atoms)
        for key in dict.fromkeys(key for frame in frames for key in frame.keys):
            self._add_quantity(str(key), frames, counts)
        self._n, self._n_atoms = self._n + n, self._n_atoms + atoms

    def _put(self, name: str, values: np.ndarray, before: int) -> None:
        """Append to an array that had nothing to say for the rows ``before`` if it is new, or was not told of some."""
        if name not in self._arrays:
            path = self._folder / f"{name}.npy"
            self._arrays[name] = _Growing(path, values.dtype, values.shape[1:])
        array = self._arrays[name]
        array.skip(before - array.length)
        array.add(values)

    def _add_quantity(self, key: str, frames: Sequence[Frame], counts: np.ndarray) -> None:
        if key in self.left_out:
            return
        per_atom = any(key in frame.per_atom for frame in frames)
        values = [f.per_atom.get(key) if per_atom else f.per_structure.get(key) for f in frames]
        try:
            rows, there, words = self._rows(key, values, per_atom, counts)
        except ValueError as error:
            self._leave_out(key, str(error))
            return
        if rows is None:
            return
        known = self._quantities.get(key)
        if known is None:
            path = self._folder / f"q{self._n_written}.npy"
            self._n_written += 1
            array = _Growing(path, rows.dtype, rows.shape[1:])
            known = _Quantity(key, per_atom, array, {} if words is not None else None)
            self._quantities[key] = known
        array = known.array
        if (known.per_atom, known.words is None, array.tail) != (
            per_atom,
            words is None,
            rows.shape[1:],
        ):
            self._leave_out(key, f"it changes its shape at structure {self._n}")
            return
        if words is not None and known.words is not None:
            for word in words:
                known.words.setdefault(word, len(known.words))
            if len(known.words) > WORDS:
                self._leave_out(key, f"it has more than {WORDS} different texts")
                return
            rows = np.array([known.words[w] for w in words], dtype=np.int32)[rows]
            rows[~there] = 0
        gap = self._n - known.n_structures
        if known.there is None and (gap or not there.all()):
            known.there = _Growing(
                array.path.with_name(f"{array.path.stem}.there.npy"), np.dtype(bool), ()
            )
            known.there.add(np.ones(known.n_structures, dtype=bool))
        if known.there is not None:
            known.there.skip(gap)
            known.there.add(there)
        array.skip((self._n_atoms if per_atom else self._n) - array.length)
        try:
            array.add(rows)
        except TypeError:
            self._leave_out(key, f"it is of another kind from structure {self._n} on")
            return
        known.n_structures = self._n + len(frames)

    def _rows(
        self, key: str, values: list[Any], per_atom: bool, counts: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray, list[str] | None]:
        """Rows of all frames (of text: which of the words), which frames have it, and the words."""
        there = np.array([value is not None for value in values])
        known = [value for value in values if value is not None]
        if not known:
            return None, there, None
        if isinstance(known[0], str) and not per_atom:
            if not all(isinstance(value, str) for value in known):
                raise ValueError("it is text in some structures and something else in others")
            words = list(dict.fromkeys(known))
            place = {word: k for k, word in enumerate(words)}
            return np.array([place.get(v, 0) for v in values]), there, words
        arrays = [None if value is None else np.asarray(value) for value in values]
        present = [array for array in arrays if array is not None]
        kinds = {array.dtype.kind for array in present}
        if not kinds <= set("biuf"):
            raise ValueError("it is no array of numbers")
        if "b" in kinds and len(kinds) > 1:
            raise ValueError("it is true or false in some structures and a number in others")
        tails = {array.shape[1:] if per_atom else array.shape for array in present}
        if len(tails) > 1:
            shapes = ", ".join(map(str, sorted(tails)[:3]))
            raise ValueError(f"its shape differs from structure to structure ({shapes})")
        tail = tails.pop()
        dtype = np.result_type(*{array.dtype for array in present})
        if dtype.kind in "iu":
            dtype = np.dtype(np.int64)
        elif dtype.itemsize < 4 and dtype.kind == "f":
            dtype = np.dtype(np.float32)
        if per_atom:
            parts = [
                np.zeros((count, *tail), dtype) if array is None else array
                for array, count in zip(arrays, counts.tolist(), strict=True)
            ]
            if any(len(part) != n for part, n in zip(parts, counts.tolist(), strict=True)):
                raise ValueError("it has not as many rows as there are atoms")
            return np.concatenate(parts).astype(dtype, copy=False), there, None
        empty = np.zeros(tail, dtype)
        return np.stack([empty if a is None else a for a in arrays]).astype(dtype), there, None

    def _leave_out(self, key: str, why: str) -> None:
        self.left_out[key] = why
        known = self._quantities.pop(key, None)
        for array in (known.array, known.there) if known is not None else ():
            if array is not None:
                array.close()
                array.path.unlink()

    def close(self, account: dict[str, Any], summary: str) -> dict[str, Any]:
        """Write the index, with how the files were read and a line on what there is. Gives the index."""
        hashes = {"offsets": self._offsets.close()}
        for name, array in self._arrays.items():
            array.skip(
                (self._n_atoms if name in ("numbers", "positions", "fixed") else self._n)
                - array.length
            )
            hashes[name] = array.close()
        quantities: dict[str, Any] = {}
        for key, q in self._quantities.items():
            missing = self._n - q.n_structures
            if missing and q.there is None:
                path = q.array.path.with_name(f"{q.array.path.stem}.there.npy")
                q.there = _Growing(path, np.dtype(bool), ())
                q.there.add(np.ones(q.n_structures, dtype=bool))
            q.array.skip((self._n_atoms if q.per_atom else self._n) - q.array.length)
            hashes[key] = q.array.close()
            if q.there is not None:
                q.there.skip(missing)
                hashes[f"{key} there"] = q.there.close()
            quantities[key] = {
                "file": q.array.path.name,
                "per_atom": q.per_atom,
                "words": None if q.words is None else list(q.words),
                "masked": q.there is not None,
            }
        index = {
            "format": FORMAT,
            "version": VERSION,
            "atomtrain_version": __version__,
            "n_structures": self._n,
            "n_atoms": self._n_atoms,
            "elements": {str(z): n for z, n in sorted(self._elements.items())},
            "quantities": quantities,
            "files": self._files,
            "summary": summary,
            "account": account,
            "fingerprint": hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
        }
        (self._folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        return index
