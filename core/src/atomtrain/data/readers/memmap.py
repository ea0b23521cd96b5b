"""Memory-mapped directories: one file of plain numbers for each quantity of all structures.

``ns.npy`` (number of structures), ``na.npy`` (atoms before each structure and in all, ``[ns + 1]``),
``x.bin`` (positions), ``a.bin`` (atomic numbers, int32), ``c.bin`` (cells, may be absent) and
``<key>.bin`` for labels: float32, one row per structure or atom, components before properties.
Forces and stress are ``<key>.bin``, or ``<energy>_forces.bin`` and ``<energy>_stress.bin``, which is
what evaluation writes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from atomtrain.data.readers.base import (
    DataFile,
    GradientKind,
    Rows,
    Wanted,
    strain_derivative,
)
from atomtrain.data.store import slices
from atomtrain.errors import DataError
from atomtrain.files import file_stem
from atomtrain.frame import Frame
from atomtrain.targets import TargetInfo

STRUCTURES = ("x", "a", "c")


class MemmapFile(DataFile):
    """A directory in the format above. A structure is periodic along its non-zero cell vectors."""

    def __init__(self, path: str, where: str) -> None:
        super().__init__(path)
        self._folder = Path(path)
        try:
            self._n = int(np.load(self._folder / "ns.npy"))
            self._offsets = np.load(self._folder / "na.npy").astype(np.int64)
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise DataError(
                f"{where}: '{path}' is not a memory-mapped data set: ns.npy and na.npy must hold "
                f"the number of structures and the cumulative numbers of atoms ({error})"
            ) from None
        offsets = self._offsets
        if offsets.shape != (self._n + 1,) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise DataError(
                f"{where}: na.npy of '{path}' must hold {self._n + 1} numbers (one more than "
                "ns.npy says there are structures) that start at 0 and do not decrease"
            )
        self.frames = self._structures(where) if self._n else []

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
        return replace(rows, values=strain_derivative(matrices, kind, cells).reshape(-1, 9))

    def in_frames(self, where: str) -> list[Frame]:
        """The structures with all labels, in the precision of the folder.

        DataError where a file may be of atoms as well as of structures.
        """
        atoms = int(self._offsets[-1])
        bounds = self._offsets.tolist()
        positions = self._array("x", "<f4", (atoms, 3), where)
        for k, frame in enumerate(self.frames):
            frame.positions = positions[bounds[k] : bounds[k + 1]]
        for key in sorted(self.keys):
            numbers = self._file(key).stat().st_size // 4
            word = key.rpartition("_")[2]
            per_atom = word == "forces"
            if not per_atom and word not in ("energy", "stress", "virial"):
                of_atoms, of_structures = numbers % atoms == 0, numbers % self._n == 0
                if of_atoms == of_structures:
                    raise DataError(
                        f"{where}: it cannot be told whether '{self._file(key)}' is of atoms or of structures; a "
                        "folder of arrays can be read as it is"
                    )
                per_atom = of_atoms
            rows = atoms if per_atom else self._n
            values = self._array(key, "<f4", (rows, numbers // max(rows, 1)), where)
            values = values[:, 0] if values.shape[1] == 1 else values
            name = word if word in ("forces", "stress", "virial") else key
            for k, frame in enumerate(self.frames):
                if per_atom:
                    frame.per_atom[name] = values[bounds[k] : bounds[k + 1]]
                else:
                    frame.per_structure[name] = values[k]
        return list(self.frames)

    def _rows(self, names: list[str], per_atom: bool, width: int, wanted: Wanted) -> Rows:
        """Of the first of ``names`` there is."""
        for name in names:
            if not self._file(name).is_file():
                continue
            total = int(self._offsets[-1]) if per_atom else self._n
            found = self._array(name, "<f4", (total, width), wanted.where)
            rows = torch.tensor(wanted.chosen)
            if per_atom:
                rows = slices(torch.from_numpy(self._offsets), rows).rows
            values = found[rows.numpy()].astype(np.float64)
            return Rows(values, np.ones(values.shape, dtype=bool), f"'{name}'", per_atom)
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
        if not file.is_file():
            raise DataError(f"{where}: '{self.path}' is incomplete: there is no '{file.name}'")
        size, expected = file.stat().st_size, int(np.prod(shape)) * 4
        if size != expected:
            kind = {"<f4": "float32", "<i4": "int32"}[dtype]
            advice = (
                "write it again"
                if name in STRUCTURES
                else "check sample_kind, type and num_subtargets in the options"
            )
            raise DataError(
                f"{where}: '{file}' has {size} bytes, but {' x '.join(map(str, shape))} numbers "
                f"({kind}) make {expected}; there are {self._n} structures with "
                f"{self._offsets[-1]} atoms: {advice}"
            )
        # a plain view: slices of the subclass cost ten times as much
        return np.asarray(np.memmap(file, dtype=dtype, mode="r", shape=shape))
