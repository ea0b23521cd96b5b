"""Pair lists of the structures in a store, by vesin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import vesin
from torch import Tensor

from atomtrain.data.store import StructureStore, offsets_of
from atomtrain.errors import DataError

BYTES_PER_PAIR = 4 + 4 + 3 * 2
"""centers and neighbours as int32, shifts as int16"""


@dataclass
class PairList:
    """The pairs of several structures, one after the other.

    Atoms are numbered within their structure. Pairs are ordered by center, then by the atomic
    number of the neighbour, then by the neighbour and its shift: always the same order for the
    same structure, whatever the list was made with.
    """

    centers: Tensor
    """[n_pairs] int32"""
    neighbors: Tensor
    """[n_pairs] int32"""
    shifts: Tensor
    """[n_pairs, 3] int16"""
    offsets: Tensor
    """[n_structures + 1] int64: structure k has the pairs offsets[k]:offsets[k + 1]"""

    @property
    def counts(self) -> Tensor:
        """Pairs of each structure, [n_structures] int64."""
        return self.offsets[1:] - self.offsets[:-1]

    @classmethod
    def empty(cls, room: int) -> PairList:
        """Tables for that many pairs, of no structure yet."""
        return cls(
            centers=torch.empty(room, dtype=torch.int32),
            neighbors=torch.empty(room, dtype=torch.int32),
            shifts=torch.empty(room, 3, dtype=torch.int16),
            offsets=torch.zeros(1, dtype=torch.int64),
        )

    @classmethod
    def joined(cls, lists: Sequence[PairList]) -> PairList:
        """Several lists, one after the other."""
        counts = torch.cat([pairs.counts for pairs in lists])
        return cls(
            torch.cat([pairs.centers for pairs in lists]),
            torch.cat([pairs.neighbors for pairs in lists]),
            torch.cat([pairs.shifts for pairs in lists]),
            offsets_of(counts),
        )


def pair_list(store: StructureStore, structures: Tensor, cutoff: float) -> PairList:
    """Full pair lists of ``structures`` with all pairs closer than ``cutoff``.

    Periodic images count, an atom may be its own neighbour, and partial periodicity is respected.
    """
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=True)
    offsets = store.offsets.tolist()
    nobody = np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.int16)
    found = [nobody]  # so that there is something to join
    for k in structures.tolist():
        atoms = slice(offsets[k], offsets[k + 1])
        positions, types = store.positions[atoms].numpy(), store.types[atoms].numpy()
        cell, pbc = store.cells[k].numpy(), store.pbc[k].numpy()
        found.append(_pairs_of_one(calculator, positions, cell, pbc, types))
    centers, neighbors, shifts = (np.concatenate(part) for part in zip(*found, strict=True))
    return PairList(
        torch.from_numpy(centers),
        torch.from_numpy(neighbors),
        torch.from_numpy(shifts),
        torch.from_numpy(np.cumsum([len(i) for i, _, _ in found], dtype=np.int64)),
    )


def _pairs_of_one(
    calculator: vesin.NeighborList,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    types: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i, j, s = calculator.compute(
        points=positions,
        box=cell if pbc.any() else np.zeros((3, 3)),
        periodic=pbc if pbc.any() else False,
        quantities="ijS",
    )
    i, j = i.astype(np.int64), j.astype(np.int64)
    s = s.astype(np.int64)
    span = int(np.abs(s).max()) + 1 if len(s) else 1
    if span > np.iinfo(np.int16).max:
        raise DataError(
            "an atom lies more than 32,000 cells away from its neighbours; wrap the positions "
            "into the cell"
        )
    width, kinds = 2 * span + 1, int(types.max()) + 1
    if kinds * len(positions) ** 2 * width**3 < 2**62:
        # one integer key per pair sorts faster than a lexicographic sort over six columns
        key = (i * kinds + types[j]) * len(positions) + j
        for axis in range(3):
            key = key * width + s[:, axis] + span
        order = np.argsort(key, kind="stable")
    else:
        order = np.lexsort((s[:, 2], s[:, 1], s[:, 0], j, types[j], i))
    return i[order].astype(np.int32), j[order].astype(np.int32), s[order].astype(np.int16)
