"""Pair lists of the structures in a store, by vesin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import vesin
from torch import Tensor

from atomtrain.data.store import StructureStore
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


def pair_list(store: StructureStore, structures: Tensor, cutoff: float) -> PairList:
    """Full pair lists of ``structures`` with all pairs closer than ``cutoff``.

    Periodic images count, an atom may be its own neighbour, and partial periodicity is respected.
    """
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=True)
    centers, neighbors, shifts, counts = [], [], [], [0]
    offsets = store.offsets.tolist()
    for k in structures.tolist():
        start, stop = offsets[k], offsets[k + 1]
        i, j, s = _pairs_of_one(
            calculator,
            store.positions[start:stop].numpy(),
            store.cells[k].numpy(),
            store.pbc[k].numpy(),
            store.types[start:stop].numpy(),
        )
        centers.append(i)
        neighbors.append(j)
        shifts.append(s)
        counts.append(len(i))
    return PairList(
        torch.from_numpy(np.concatenate(centers or [np.zeros(0, np.int32)])),
        torch.from_numpy(np.concatenate(neighbors or [np.zeros(0, np.int32)])),
        torch.from_numpy(np.concatenate(shifts or [np.zeros((0, 3), np.int16)])),
        torch.from_numpy(np.cumsum(counts, dtype=np.int64)),
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
