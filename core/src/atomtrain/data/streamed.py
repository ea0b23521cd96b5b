"""Structures that are read when they are wanted: sets of any size, of which a part is in memory at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from atomtrain.data.readers import Files, StoreFile
from atomtrain.data.sampling import Blocks
from atomtrain.data.sections import Remarks, read_section
from atomtrain.data.store import StructureStore
from atomtrain.options import DatasetSection
from atomtrain.targets import TargetInfo

SAMPLE = 20_000
"""structures that stand for all in statistics"""
OF_EACH = 100
"""structures of an element that are in the sample, or all there are"""
AT_ONCE = 64
"""blocks that are mixed: every process of as many, or of a part of them, has its own"""
SCANNED = 1 << 20
"""structures that are looked through at once"""


@dataclass(eq=False)
class LazySection:
    """Frames of a section whose file is a data set on disk, not read yet.

    ``known``: the targets, as they were found in a sample.
    """

    section: DatasetSection
    files: Files
    file: StoreFile
    frames: np.ndarray
    default_kind: str
    known: Mapping[str, TargetInfo]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def n_atoms(self) -> np.ndarray:
        """Atoms of each structure, [n]."""
        offsets = self.file.stored.offsets
        found: np.ndarray = offsets[self.frames + 1] - offsets[self.frames]
        return found

    @property
    def fingerprint(self) -> str:
        """A hash of which structures these are, and of what the options take from them."""
        said = (self.file.stored.fingerprint, self.section.model_dump_json(), len(self.frames))
        digest = hashlib.sha256(repr(said).encode())
        digest.update(np.ascontiguousarray(self.frames, dtype=np.int64).tobytes())
        return digest.hexdigest()

    def of(self, frames: Sequence[int]) -> LazySection:
        """Other frames of the same file."""
        chosen = np.asarray(frames, dtype=np.int64)
        return LazySection(
            self.section, self.files, self.file, chosen, self.default_kind, self.known
        )

    def read(self, rows: np.ndarray) -> StructureStore:
        """Some of the structures with their labels; what is worth a remark was remarked on the sample."""
        only = self.frames[rows]
        return read_section(
            self.section, self.files, Remarks(), self.default_kind, self.known, only=only
        ).store

    def with_elements(self, wanted: int) -> dict[int, list[int]]:
        """By atomic number the first structures with atoms of it, up to ``wanted``."""
        found: dict[int, list[int]] = {}
        stored = self.file.stored
        for start in range(0, len(self.frames), SCANNED):
            frames = self.frames[start : start + SCANNED]
            numbers = stored.of_atoms(stored.numbers, frames)
            owners = np.repeat(
                np.arange(len(frames)), stored.offsets[frames + 1] - stored.offsets[frames]
            )
            for number in np.flatnonzero(np.bincount(numbers, minlength=1)).tolist():
                known = found.setdefault(number, [])
                if len(known) < wanted:
                    rows = owners[numbers == number]
                    first = np.concatenate([[True], rows[1:] != rows[:-1]])
                    known += (start + rows[first][: wanted - len(known)]).tolist()
        return found


class StreamedStore:
    """A set of structures on disk, with the face of a :class:`StructureStore` as far as it can have one.

    ``parts`` follow one another; ``join`` makes one store of theirs, with the labels that all sets have.
    ``window``: how many structures may be in memory.
    """

    def __init__(
        self,
        parts: Sequence[StructureStore | LazySection],
        join: Callable[[Sequence[StructureStore]], StructureStore],
        window: int,
    ) -> None:
        self._parts, self._join = parts, join
        self._starts = np.cumsum([0] + [len(part) for part in parts])
        self.n_atoms: Tensor = torch.cat([torch.as_tensor(part.n_atoms) for part in parts])
        at_once = min(AT_ONCE, max(1, window))
        self.blocks = Blocks(max(1, window // at_once), at_once)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def select(self, structures: Tensor) -> StructureStore:
        """These structures, read into memory, in this order."""
        chosen = structures.numpy()
        owners = np.searchsorted(self._starts, chosen, side="right") - 1
        stores, places = [], []
        for k in np.unique(owners).tolist():
            place = np.flatnonzero(owners == k)
            rows, part = chosen[place] - self._starts[k], self._parts[k]
            stores.append(
                part.read(rows)
                if isinstance(part, LazySection)
                else part.select(torch.from_numpy(rows))
            )
            places.append(place)
        found = self._join(stores)
        if len(stores) > 1:
            found = found.select(torch.from_numpy(np.argsort(np.concatenate(places))))
        found.ids = structures
        return found

    @cached_property
    def _elements(self) -> dict[int, list[int]]:
        """By atomic number some structures with atoms of it."""
        found: dict[int, list[int]] = {}
        for start, part in zip(self._starts.tolist(), self._parts, strict=False):
            if isinstance(part, LazySection):
                there = part.with_elements(OF_EACH)
            else:
                there = {z: [part.first_with([z])] for z in part.elements}
            for number, rows in there.items():
                found.setdefault(number, []).extend(start + row for row in rows)
        return found

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        return sorted(self._elements)

    def first_with(self, types: Sequence[int]) -> int:
        """The first structure that has an atom of one of these ``types``; one must have."""
        return min(min(self._elements[z]) for z in types if z in self._elements)

    @cached_property
    def sample(self) -> StructureStore:
        """Structures that stand for all in statistics: evenly chosen, and some of each element."""
        n = min(SAMPLE, self.blocks.window, len(self))
        even = np.linspace(0, len(self) - 1, n).astype(np.int64)
        rare = [row for rows in self._elements.values() for row in rows]
        chosen = np.unique(np.concatenate([even, np.array(rare, dtype=np.int64)]))
        found = self.select(torch.from_numpy(chosen))
        found.ids = None
        return found

    @property
    def fingerprint(self) -> str:
        """Hash of which structures and labels these are; nothing is read for it."""
        parts = [part.fingerprint for part in self._parts]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def origin(self, structure: int) -> str:
        """Where a structure came from, for messages."""
        return self.select(torch.tensor([structure])).origin(0)


Structures: TypeAlias = StructureStore | StreamedStore
"""a set of structures, in memory or on disk"""


def bytes_in_memory(file: StoreFile) -> int:
    """About how much a data set takes as batches are made of it: structures, all values, and copies of these."""
    stored = file.stored
    of_atoms, of_structures = 8 * 4, 9 * 8 + 8 * 4
    for quantity in stored.quantities.values():
        width = 8 * int(np.prod(quantity.values.tail, dtype=np.int64))
        if quantity.per_atom:
            of_atoms += width
        else:
            of_structures += width
    return 2 * (of_atoms * int(stored.offsets[-1]) + of_structures * len(stored))
