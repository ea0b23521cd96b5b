"""Pair lists: the right pairs for awkward cells, always in the same order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from helpers.frames import awkward

from atomtrain.data import pair_list
from atomtrain.data.neighbors import PairList
from atomtrain.errors import DataError
from atomtrain_testing.predictions import store_of


def rows(i: np.ndarray, j: np.ndarray, s: np.ndarray) -> list[tuple[int, ...]]:
    return sorted(map(tuple, np.column_stack([i, j, s]).astype(int).tolist()))


def rows_of(pairs: PairList) -> list[tuple[int, ...]]:
    return rows(pairs.centers.numpy(), pairs.neighbors.numpy(), pairs.shifts.numpy())


@pytest.mark.parametrize("cutoff", [2.0, 5.0, 7.3])
@pytest.mark.parametrize("name", awkward())
def test_pairs_are_those_of_ase(name: str, cutoff: float) -> None:
    atoms = awkward()[name]
    store = store_of([atoms])
    reference = Atoms(atoms.numbers, atoms.positions, cell=store.cells[0].numpy(), pbc=atoms.pbc)
    pairs = pair_list(store, torch.tensor([0]), cutoff)
    assert rows_of(pairs) == rows(*neighbor_list("ijS", reference, cutoff))
    assert pairs.offsets.tolist() == [0, len(pairs.centers)]


def test_cutoff_is_strict() -> None:
    store = store_of([Atoms("H2", [[0, 0, 0], [5.0, 0, 0]])])
    assert len(pair_list(store, torch.tensor([0]), 5.0).centers) == 0
    assert len(pair_list(store, torch.tensor([0]), np.nextafter(5.0, 6.0)).centers) == 2


def test_several_structures_in_any_order() -> None:
    frames = list(awkward().values())
    store = store_of(frames)
    order = torch.tensor([4, 0, 3, 3])
    pairs = pair_list(store, order, 5.0)
    for k, structure in enumerate(order.tolist()):
        start, stop = pairs.offsets[k : k + 2].tolist()
        alone = pair_list(store, torch.tensor([structure]), 5.0)
        assert torch.equal(pairs.centers[start:stop], alone.centers)
        assert torch.equal(pairs.neighbors[start:stop], alone.neighbors)
        assert torch.equal(pairs.shifts[start:stop], alone.shifts)


@pytest.mark.parametrize("name", awkward())
def test_order_is_center_species_neighbour_shift(name: str) -> None:
    atoms = awkward()[name]
    pairs = pair_list(store_of([atoms]), torch.tensor([0]), 5.0)
    i, j, s = pairs.centers.numpy(), pairs.neighbors.numpy(), pairs.shifts.numpy()
    keys = list(zip(i, atoms.numbers[j], j, *s.T, strict=True))
    assert keys == sorted(keys)


def test_many_atoms_far_outside_are_ordered_alike() -> None:
    """So many atoms and such shifts that one integer cannot hold the key of a pair."""
    rng = np.random.default_rng(0)
    atoms = Atoms("SiC" * 60, rng.uniform(0, 12, size=(120, 3)), cell=[12, 12, 12], pbc=True)
    inside = pair_list(store_of([atoms]), torch.tensor([0]), 3.0)
    atoms.positions[1] += [12 * 3e4, -12 * 2e4, 0]
    outside = pair_list(store_of([atoms]), torch.tensor([0]), 3.0)
    assert int(outside.shifts.abs().max()) >= 29999
    assert torch.equal(outside.centers, inside.centers)
    assert torch.equal(outside.neighbors, inside.neighbors)


def test_atoms_too_far_outside() -> None:
    store = store_of([Atoms("SiC", [[0, 0, 0], [4e5, 0.5, 1]], cell=[4, 4, 4], pbc=True)])
    with pytest.raises(DataError, match=r"more than 32,000 cells away .* wrap the positions"):
        pair_list(store, torch.tensor([0]), 5.0)
