"""Pair lists against ASE, batches against structures one by one, sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from core_structures import store_of

from atomtrain.data import BatchSource, Label, epoch_batches, pair_list
from atomtrain.model import Constants


def frames() -> list[Atoms]:
    rng = np.random.default_rng(0)
    skewed = bulk("Cu", "fcc", a=3.6)
    slab = bulk("C", "diamond", a=3.57, cubic=True)
    slab.pbc = [True, False, True]
    found = [molecule("CH3CH2OH"), skewed, slab, Atoms("O"), bulk("NaCl", "rocksalt", a=5.6)]
    for atoms in found:
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
    return found


@pytest.mark.parametrize("cutoff", [2.0, 5.0])
def test_pairs_are_those_of_ase(cutoff: float) -> None:
    store = store_of(frames())
    pairs = pair_list(store, torch.arange(len(store)), cutoff)
    for k, atoms in enumerate(frames()):
        chosen = slice(int(pairs.offsets[k]), int(pairs.offsets[k + 1]))
        i, j, s = neighbor_list("ijS", atoms, cutoff)
        mine = [
            (int(a), int(b), *map(int, c))
            for a, b, c in zip(
                pairs.centers[chosen], pairs.neighbors[chosen], pairs.shifts[chosen], strict=True
            )
        ]
        assert sorted(mine) == sorted(
            (int(a), int(b), *map(int, c)) for a, b, c in zip(i, j, s, strict=True)
        )
        order = [(a, int(atoms.numbers[b])) for a, b, *_ in mine]
        assert order == sorted(order)


def constants(graph) -> Constants:  # type: ignore[no-untyped-def]
    return Constants({"t/x": graph.positions * 2}, {"t/v": graph.vectors.sum(1)})


@pytest.mark.parametrize(("budget", "kept"), [(0, False), (1 << 30, True), (100, False)])
def test_batches(budget: int, kept: bool) -> None:
    store = store_of(frames())
    generator = torch.Generator().manual_seed(0)
    store.labels["a"] = Label(
        torch.randn(len(store.types), 2, dtype=torch.float64, generator=generator), True
    )
    mask = torch.tensor([[True], [False], [True], [True], [True]])
    store.labels["s"] = Label(torch.arange(5.0, dtype=torch.float64)[:, None], False, mask)
    source = BatchSource(
        store, cutoff=5.0, dtype=torch.float64, constants=constants,
        device=torch.device("cpu"), memory_budget=budget, num_workers=0,
    )  # fmt: skip
    which = torch.tensor([4, 0, 3])
    batch = source.batch(which)
    graph = batch.graph
    assert bool(graph.extras) == kept
    if kept:
        torch.testing.assert_close(graph.extras["t/x"], graph.positions * 2)
        torch.testing.assert_close(graph.extras["t/v"], graph.vectors.sum(1))
    assert batch.n_atoms.tolist() == [2, 9, 1]
    assert batch.labels["s"].flatten().tolist() == [4, 0, 3]
    assert batch.masks["s"] is not None and batch.masks["a"] is None
    start = 0
    for k, structure in enumerate(which.tolist()):
        atoms = frames()[structure]
        mine = graph.structure == k
        np.testing.assert_array_equal(graph.positions[mine], atoms.positions)
        np.testing.assert_array_equal(graph.types[mine], atoms.numbers)
        _i, d = neighbor_list("id", atoms, 5.0)
        here = (graph.centers >= start) & (graph.centers < start + len(atoms))
        np.testing.assert_allclose(
            np.sort(torch.linalg.vector_norm(graph.vectors[here], dim=1)), np.sort(d)
        )
        start += len(atoms)


def test_workers_change_nothing() -> None:
    store = store_of(frames())
    order = [torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([3, 4])]
    results = []
    for workers in (0, 1):
        source = BatchSource(
            store, cutoff=4.0, dtype=torch.float32, constants=None,
            device=torch.device("cpu"), memory_budget=0, num_workers=workers,
        )  # fmt: skip
        results.append([b.graph.vectors for b in source.epoch(order)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_sampling() -> None:
    sizes = torch.tensor([3, 9, 2, 4, 4, 1, 7])
    kinds = {"batch_size": 2, "seed": 1, "shuffle": True}
    first = epoch_batches(sizes, epoch=0, **kinds)
    assert sorted(torch.cat(first).tolist()) == list(range(7))
    assert [b.tolist() for b in first] == [
        b.tolist() for b in epoch_batches(sizes, epoch=0, **kinds)
    ]
    assert torch.cat(first).tolist() != torch.cat(epoch_batches(sizes, epoch=1, **kinds)).tolist()
    assert len(epoch_batches(sizes, epoch=0, drop_last=True, **kinds)) == 3
    for batch in epoch_batches(sizes, epoch=0, max_atoms=8, min_atoms=4, **kinds):
        assert 4 <= int(sizes[batch].sum()) <= 8
    bounded = epoch_batches(sizes, epoch=0, bounds=(None, 7), **kinds)
    assert all(int(sizes[b].sum()) <= 7 for b in bounded)
    assert [len(b) for b in epoch_batches(sizes[:1], epoch=0, drop_last=True, **kinds)] == [1]
