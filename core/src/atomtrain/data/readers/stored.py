"""Data sets on disk (:mod:`atomtrain.data.stored`), as any other file and, for those of any size, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
import torch

from atomtrain.data.readers.account import Account, Quantity
from atomtrain.data.readers.base import GradientKind, Rows, Wanted, strain_derivative
from atomtrain.data.readers.frames import VOIGT, FramesFile
from atomtrain.data.store import StructureStore, offsets_of
from atomtrain.data.stored import Stored, StoredQuantity
from atomtrain.frame import Frame
from atomtrain.targets import TargetInfo

AHEAD = 1024
"""frames that are read at once where they are gone through"""


class StoredFrames(Sequence[Frame]):
    """The structures of a data set on disk, each read when it is asked for."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.n_atoms = np.diff(stored.offsets)

    def __len__(self) -> int:
        return len(self.stored)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return self.stored.frames(np.arange(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.stored.frames(np.array([index % len(self)]))[0]

    def __iter__(self) -> Iterator[Frame]:
        for start in range(0, len(self), AHEAD):
            yield from self[start : start + AHEAD]


class StoreFile(FramesFile):
    """A data set on disk. What it has was checked when it was made."""

    checked = True

    def __init__(self, path: str, where: str) -> None:
        self.stored = Stored(path, where)
        super().__init__(path, StoredFrames(self.stored))
        said = dict(self.stored.index["account"])
        said["quantities"] = {k: Quantity(**q) for k, q in said.get("quantities", {}).items()}
        self.account = Account(**said)

    @property
    def description(self) -> str:
        index = self.stored.index
        return f"read '{self.path}': data set on disk; {index['summary']}"

    @property
    def keys(self) -> set[str]:  # type: ignore[override]
        return set(self.stored.quantities)

    @property
    def files(self) -> list[str]:
        found: list[str] = self.stored.index["files"]
        return found

    def origin(self, frame: int) -> tuple[int, int]:
        file, number = self.stored.origins.rows(frame, frame + 1)[0].tolist()
        return file, number

    def flag(self, key: str) -> bool:
        found = self.stored.quantities.get(key)
        if found is None or found.values.dtype.kind != "b" or found.values.tail:
            return False
        values = found.values.rows(0, found.values.length)
        return bool(values[slice(None) if found.there is None else found.there].all())

    def periodic(self, frames: Sequence[int]) -> np.ndarray:
        pbc = self.stored.boxes(np.asarray(frames, dtype=np.int64))[1]
        return np.asarray(pbc.all(axis=1))

    @property
    def has_fixed(self) -> bool:
        return self.stored.fixed is not None

    def packed(self, frames: Sequence[int], where: str) -> StructureStore:
        stored, chosen = self.stored, np.asarray(frames, dtype=np.int64)
        cells, pbc = stored.boxes(chosen)
        counts = stored.offsets[chosen + 1] - stored.offsets[chosen]
        types = stored.of_atoms(stored.numbers, chosen).astype(np.int64)
        positions = stored.of_atoms(stored.positions, chosen).astype(np.float64)
        origins = stored.of_structures(stored.origins, chosen).astype(np.int64)
        return StructureStore(
            positions=torch.from_numpy(positions),
            types=torch.from_numpy(types),
            cells=torch.from_numpy(np.where(pbc[:, :, None], cells, 0.0)),
            pbc=torch.from_numpy(pbc),
            offsets=offsets_of(torch.from_numpy(counts)),
            files=self.files,
            origins=torch.from_numpy(origins),
        )

    def raw(self, key: str, info: TargetInfo, wanted: Wanted) -> list[Any]:
        found, chosen = (
            self.stored.quantities.get(key),
            np.asarray(wanted.chosen, dtype=np.int64),
        )
        if found is None or found.per_atom:
            return super().raw(key, info, wanted)
        rows = self.stored.of_structures(found.values, chosen)
        there = np.ones(len(chosen), dtype=bool) if found.there is None else found.there[chosen]
        if found.words is not None:
            words = found.words
            return [
                words[k] if t else None for k, t in zip(rows.tolist(), there.tolist(), strict=True)
            ]
        values = rows.tolist() if rows.ndim == 1 else list(rows)
        return [v if t else None for v, t in zip(values, there.tolist(), strict=True)]

    def target(self, key: str, info: TargetInfo, wanted: Wanted) -> Rows:
        found = self.stored.quantities.get(key)
        if found is None:
            return Rows.absent(wanted, info.per_atom, info.width, f"'{key}'")
        size = int(np.prod(found.values.tail, dtype=np.int64))
        if info.per_volume and size in (6, 9) and self._plain(found, info.per_atom):
            rows = self._gathered(found, key, wanted)
            return replace(rows, values=_symmetric(rows.values), there=_wider(rows.there, 9))
        if info.per_volume or size != info.width or not self._plain(found, info.per_atom):
            return super().target(key, info, wanted)  # it says what does not fit
        return self._gathered(found, key, wanted)

    def gradient(self, key: str, kind: GradientKind, energy: str, wanted: Wanted) -> Rows:
        found = self.stored.quantities.get(key)
        if found is None:
            forces = kind == "forces"
            return Rows.absent(wanted, forces, 3 if forces else 9, f"'{key}'")
        size = int(np.prod(found.values.tail, dtype=np.int64))
        if kind == "forces":
            if size != 3 or not self._plain(found, per_atom=True):
                return super().gradient(key, kind, energy, wanted)
            return self._gathered(found, key, wanted)
        if size not in (6, 9) or not self._plain(found, per_atom=False):
            return super().gradient(key, kind, energy, wanted)
        rows = self._gathered(found, key, wanted)
        cells = self.stored.boxes(np.asarray(wanted.chosen, dtype=np.int64))[0]
        matrices = _symmetric(rows.values).reshape(-1, 3, 3)
        strain = strain_derivative(matrices, kind, cells).reshape(-1, 9)
        strain[~rows.there[:, 0]] = 0.0
        return replace(rows, values=strain, there=_wider(rows.there, 9))

    def _plain(self, found: StoredQuantity, per_atom: bool) -> bool:
        numbers = found.words is None and found.values.dtype.kind in "iuf"
        return numbers and found.per_atom == per_atom

    def _gathered(self, found: StoredQuantity, key: str, wanted: Wanted) -> Rows:
        chosen = np.asarray(wanted.chosen, dtype=np.int64)
        gather = self.stored.of_atoms if found.per_atom else self.stored.of_structures
        values = gather(found.values, chosen).astype(np.float64)
        values = values.reshape(len(values), -1)
        there = np.ones(values.shape, dtype=bool)
        if found.there is not None:
            mask = np.repeat(found.there[chosen], wanted.counts(found.per_atom))
            there &= mask[:, None]
            values[~mask] = 0.0
        return Rows(values, there, f"'{key}'", found.per_atom)


def _symmetric(values: np.ndarray) -> np.ndarray:
    """``[n, 9]`` of ``[n, 6]`` in ASE's order; nine numbers are as they are to be."""
    return values if values.shape[1] == 9 else values[:, np.array(VOIGT).ravel()]


def _wider(there: np.ndarray, width: int) -> np.ndarray:
    return np.repeat(there[:, :1], width, axis=1)
