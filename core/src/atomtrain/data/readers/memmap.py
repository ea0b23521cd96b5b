"""Memory-mapped directories: one file of plain numbers for each quantity of all structures.

``ns.npy`` (number of structures), ``na.npy`` (atoms before each structure and in all, ``[ns + 1]``),
``x.bin`` (positions), ``a.bin`` (atomic numbers, int32), ``c.bin`` (cells, may be absent) and
``<key>.bin`` for labels: float32, one row per structure or atom.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atomtrain.data.readers.base import (
    DataFile,
    Frame,
    GradientKind,
    Rows,
    Wanted,
    strain_derivative,
)
from atomtrain.errors import DataError
from atomtrain.targets import TargetInfo

STRUCTURES = ("x", "a", "c")


def file_stem(key: str) -> str:
    """``key`` as part of a file's name: variants (``energy/pbe``) are no subdirectories."""
    return key.replace("/", "_")


class MemmapFile(DataFile):
    """A directory in the format above. A structure is periodic along its non-zero cell vectors."""

    def __init__(self, path: str, where: str) -> None:
        super().__init__(path)
        self._folder = Path(path)
        try:
            self._n = int(np.load(self._folder / "ns.npy"))
            self._offsets = np.load(self._folder / "na.npy").astype(np.int64)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"{where}: '{path}' is not a memory-mapped data set: ns.npy and na.npy must hold "
                f"the number of structures and the cumulative numbers of atoms ({error})"
            ) from None
        counts = np.diff(self._offsets)
        if self._offsets.shape != (self._n + 1,) or self._offsets[0] != 0 or (counts < 0).any():
            raise DataError(
                f"{where}: na.npy of '{path}' must hold {self._n + 1} numbers (one more than "
                "ns.npy says there are structures) that start at 0 and do not decrease"
            )
        self._frames = self._structures(where) if self._n else []

    @property
    def frames(self) -> Sequence[Frame]:
        return self._frames

    @property
    def keys(self) -> set[str]:
        return {f.stem for f in self._folder.glob("*.bin") if f.stem not in STRUCTURES}

    def target(self, key: str, info: TargetInfo, wanted: Wanted) -> Rows:
        return self._rows([key], info.per_atom, info.width, wanted)

    def gradient(self, key: str, kind: GradientKind, energy: str, wanted: Wanted) -> Rows:
        names = [key, f"{energy}_{kind}"] if key == kind else [key]
        if kind == "forces":
            return self._rows(names, True, 3, wanted)
        rows = self._rows(names, False, 9, wanted)
        cells = np.array([wanted.structures[k].cell for k in wanted.chosen]).reshape(-1, 3, 3)
        matrices = rows.values.reshape(-1, 3, 3)
        return Rows(
            strain_derivative(matrices, kind, cells).reshape(-1, 9), rows.there, rows.name
        )

    def _rows(self, names: list[str], per_atom: bool, width: int, wanted: Wanted) -> Rows:
        """Of the first of ``names`` there is."""
        for name in names:
            if not self._file(name).is_file():
                continue
            total = int(self._offsets[-1]) if per_atom else self._n
            found = self._array(name, "<f4", (total, width), wanted.where)
            values = found[wanted.rows(per_atom)].astype(np.float64)
            return Rows(values, np.ones(values.shape, dtype=bool), f"'{name}'")
        return Rows.absent(wanted, per_atom, width, f"'{names[0]}'")

    def _structures(self, where: str) -> list[Frame]:
        atoms = int(self._offsets[-1])
        if atoms == 0:
            raise DataError(f"{where}: the structures of '{self.path}' have no atoms")
        numbers = self._array("a", "<i4", (atoms,), where).astype(np.int64)
        positions = self._array("x", "<f4", (atoms, 3), where).astype(np.float64)
        cells = np.zeros((self._n, 3, 3))
        if self._file("c").is_file():
            cells = self._array("c", "<f4", (self._n, 3, 3), where).astype(np.float64)
        pbc = (cells != 0).any(2)
        bounds = self._offsets.tolist()
        return [
            Frame(numbers[start:stop], positions[start:stop], cell, periodic)
            for start, stop, cell, periodic in zip(bounds, bounds[1:], cells, pbc, strict=False)
        ]

    def _file(self, name: str) -> Path:
        return self._folder / f"{file_stem(name)}.bin"

    def _array(self, name: str, dtype: str, shape: tuple[int, ...], where: str) -> np.ndarray:
        file = self._file(name)
        expected = int(np.prod(shape)) * 4
        size = file.stat().st_size if file.is_file() else None
        if size != expected:
            found = "does not exist" if size is None else f"has {size} bytes"
            raise DataError(
                f"{where}: '{file}' {found}; {' x '.join(map(str, shape))} numbers of 4 bytes "
                f"({dtype.replace('<f4', 'float32').replace('<i4', 'int32')}) make {expected}. The "
                f"directory holds {self._n} structures with {self._offsets[-1]} atoms: check "
                "sample_kind, type and num_subtargets in the options"
            )
        return np.memmap(file, dtype=dtype, mode="r", shape=shape)
