"""Atoms that are too close: the one thing checked of every structure that needs distances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import vesin
from metatomic.torch import unit_conversion_factor

from atomtrain.data.store import StructureStore
from atomtrain.sections.names import symbols

CLOSE = 0.5
"""Distances below this part of the sum of covalent radii are worth a warning."""
ALL_PAIRS = 200
"""Up to this number of atoms it is faster to look at all pairs than to make a list of the close ones."""
PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of atoms that are close: in which structure, which atoms of it, their distance in angstrom."""

    structures: np.ndarray
    first: np.ndarray
    second: np.ndarray
    distances: np.ndarray

    def named(self, k: int, store: StructureStore) -> str:
        """``H0 and O2, 0.31 A``."""
        start = int(store.offsets[self.structures[k]])
        atoms = (int(self.first[k]), int(self.second[k]))
        i, j = (f"{symbols([int(store.types[start + atom])])}{atom}" for atom in atoms)
        return f"{i} and {j}, {self.distances[k]:.3g} A"


def close_pairs(store: StructureStore, length_unit: str) -> ClosePairs:
    """The closest pair of each structure in which atoms are closer than :data:`CLOSE` allows.

    Images count, those of an atom itself as well.
    """
    from ase.data import covalent_radii

    angstrom = unit_conversion_factor(length_unit, "angstrom")
    limits = CLOSE * covalent_radii[store.types.numpy()] / angstrom  # a pair: the sum of both
    found = [np.concatenate(part) for part in zip(*_pairs(store, limits), strict=True)]
    if not found:
        nothing = np.zeros(0, dtype=np.int64)
        return ClosePairs(nothing, nothing, nothing, np.zeros(0))
    structures, first, second, distances = found
    order = np.lexsort((distances, structures))
    order = order[np.unique(structures[order], return_index=True)[1]]
    return ClosePairs(structures[order], first[order], second[order], distances[order] * angstrom)


Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _pairs(store: StructureStore, limits: np.ndarray) -> Iterator[Parts]:
    """All pairs within the sum of their ``limits [n_atoms]``: structure, two atoms of it, distance."""
    n_atoms, offsets = store.n_atoms.numpy(), store.offsets.numpy()
    cells, pbc = store.cells.numpy(), store.pbc.numpy()
    cutoff = 2 * float(limits.max())
    # a cell vector along every direction, so that there is an inverse; the made-up ones are not used
    whole = np.where(pbc[:, :, None], cells, 0.0)
    _, _, directions = np.linalg.svd(whole)
    free = (~pbc).sum(1)
    for k in np.flatnonzero((free > 0) & (free < 3)):
        whole[k][~pbc[k]] = directions[k][3 - free[k] :]
    whole[free == 3] = np.eye(3)
    inverse = np.linalg.inv(whole)
    # the nearest image is that of the nearest lattice point where the cell is wider than two cutoffs
    widths = 1.0 / np.linalg.norm(inverse, axis=1)
    narrow = (pbc & (widths < 2 * cutoff)).any(1)
    simple = ~narrow & (n_atoms <= ALL_PAIRS)
    for n in np.unique(n_atoms[simple]).tolist():
        i, j = np.triu_indices(n, k=1)
        if not len(i):
            continue
        same = np.flatnonzero(simple & (n_atoms == n))
        at_once = max(1, PAIRS_AT_ONCE // len(i))
        for part in np.split(same, range(at_once, len(same), at_once)):
            rows = offsets[part][:, None] + np.arange(n)
            positions, allowed = store.positions.numpy()[rows], limits[rows]
            vectors = positions[:, j] - positions[:, i]
            if pbc[part].any():
                shifts = np.round(vectors @ inverse[part]) * pbc[part][:, None, :]
                vectors -= shifts @ whole[part]
            squares = (vectors**2).sum(2)
            near = squares < (allowed[:, i] + allowed[:, j]) ** 2
            which, pair = np.nonzero(near)
            yield part[which], i[pair], j[pair], np.sqrt(squares[which, pair])
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=False)
    for one in np.flatnonzero(~simple).tolist():
        atoms = slice(offsets[one], offsets[one + 1])
        periodic = pbc[one].any()
        i, j, distances = calculator.compute(
            points=store.positions[atoms].numpy(),
            box=cells[one] if periodic else np.zeros((3, 3)),
            periodic=pbc[one] if periodic else False,
            quantities="ijd",
        )
        i, j = i.astype(np.int64), j.astype(np.int64)
        near = distances < limits[atoms][i] + limits[atoms][j]
        yield np.full(near.sum(), one), i[near], j[near], distances[near]
