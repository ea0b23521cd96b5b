"""Batches: what a store holds, whichever way it is kept."""

from __future__ import annotations

import pytest
import torch
from helpers.frames import awkward
from helpers.structures import source_of

from atomtrain.data import Batch, Label, StructureStore
from atomtrain.graph import AtomGraph, pair_vectors
from atomtrain.model.base import Constants
from atomtrain_testing.predictions import store_of


def full_store() -> StructureStore:
    store = store_of(list(awkward().values())[:-1])
    n, n_atoms = len(store), len(store.types)
    generator = torch.Generator().manual_seed(0)
    store.labels = {
        "energy": Label(
            torch.randn(n, 1, dtype=torch.float64, generator=generator),
            per_atom=False,
            mask=(torch.arange(n) % 2 == 0)[:, None],
        ),
        "energy:forces": Label(
            torch.randn(n_atoms, 3, dtype=torch.float64, generator=generator), per_atom=True
        ),
    }
    store.extra = {"charge": Label(torch.arange(float(n))[:, None].double(), per_atom=False)}
    return store


def number_atoms_and_pairs(graph: AtomGraph) -> Constants:
    """Constants that tell which atom and which pair they belong to."""
    return Constants(
        per_atom={"test/atom": graph.positions * 2},
        per_pair={"test/pair": graph.vectors[:, None, :] * torch.ones(1, 2, 1)},
    )


def same(one: Batch, other: Batch) -> None:
    for a, b in zip(one.graph[:-1], other.graph[:-1], strict=True):
        assert torch.equal(a, b)
    assert one.labels.keys() == other.labels.keys()
    for key, value in one.labels.items():
        assert torch.equal(value, other.labels[key])
        mask, wanted = one.masks[key], other.masks[key]
        assert (mask is None and wanted is None) or torch.equal(mask, wanted)
    assert torch.equal(one.n_atoms, other.n_atoms)


ORDER = torch.tensor([6, 0, 3, 1, 3])


def test_batch_is_the_structures_in_their_order() -> None:
    store = full_store()
    batch = source_of(store).batch(ORDER)
    graph = batch.graph
    atoms = [store.positions[store.offsets[k] : store.offsets[k + 1]] for k in ORDER]
    assert torch.equal(graph.positions, torch.cat(atoms))
    assert graph.structure.tolist() == [k for k, a in enumerate(atoms) for _ in range(len(a))]
    assert batch.n_atoms.tolist() == [len(a) for a in atoms]
    assert torch.equal(batch.labels["energy"], store.labels["energy"].values[ORDER])
    assert batch.masks["energy"].flatten().tolist() == [k % 2 == 0 for k in ORDER.tolist()]
    assert batch.masks["energy:forces"] is None
    forces = store.labels["energy:forces"].values
    wanted = [forces[store.offsets[k] : store.offsets[k + 1]] for k in ORDER]
    assert torch.equal(batch.labels["energy:forces"], torch.cat(wanted))


def test_pairs_stay_within_their_structure() -> None:
    graph = source_of(full_store()).batch(ORDER).graph
    assert len(graph.centers) > 0
    of_center = graph.structure[graph.centers]
    assert torch.equal(of_center, graph.structure[graph.neighbors])
    assert bool((of_center[1:] >= of_center[:-1]).all())
    again = pair_vectors(
        graph.positions,
        graph.cells,
        graph.structure,
        graph.centers,
        graph.neighbors,
        graph.shifts,
    )
    assert torch.equal(graph.vectors, again)
    assert float(graph.vectors.norm(dim=1).max()) < 5.0


def test_kept_and_rebuilt_pairs_are_the_same() -> None:
    kept, rebuilt = source_of(full_store()), source_of(full_store(), memory_budget=0)
    assert kept.pairs is not None
    assert rebuilt.pairs is None
    assert "kept" in kept.report()
    assert rebuilt.report() == "pair lists made for every batch (memory_budget)"
    same(kept.batch(ORDER), rebuilt.batch(ORDER))


@pytest.mark.parametrize("of_batch", [False, True])
def test_of_a_large_store_is_kept_what_batches_compute(
    monkeypatch: pytest.MonkeyPatch, of_batch: bool
) -> None:
    """And no constants that are not to the last bit those of any batch."""

    def constants(graph: AtomGraph) -> Constants:
        found = number_atoms_and_pairs(graph)
        for values in found.per_atom.values() if of_batch else ():
            values += len(graph.types)
        return found

    monkeypatch.setattr("atomtrain.data.batch.AT_ONCE", 0)
    source = source_of(full_store(), constants=constants)
    plain = source_of(full_store(), memory_budget=0)
    assert "kept as they come" in source.report()
    assert bool(source.per_atom) != of_batch
    asked: list[int] = []
    source.constants = lambda graph: (asked.append(len(graph.types)), constants(graph))[1]
    for structures in (
        ORDER[:2],
        ORDER,
        torch.tensor([3, 8]),
        torch.arange(9),
        ORDER,
        ORDER.flip(0),
    ):
        batch = source.batch(structures)
        same(batch, plain.batch(structures))
        wanted = constants(batch.graph)
        assert torch.equal(batch.graph.extras["test/pair"], wanted.per_pair["test/pair"])
    # everything is known then; what is not kept is brought all the same
    assert len(asked) == (6 if of_batch else 4)


def test_tables_that_turn_out_too_small_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("atomtrain.data.batch.AT_ONCE", 0)
    monkeypatch.setattr("atomtrain.data.batch.SPARE", 0.1)
    source = source_of(full_store(), constants=number_atoms_and_pairs)
    plain = source_of(full_store(), memory_budget=0)
    for structures in (torch.arange(9), ORDER, torch.tensor([2]), torch.tensor([2])):
        same(source.batch(structures), plain.batch(structures))


def test_a_thread_brings_what_is_not_kept() -> None:
    source = source_of(
        full_store(), constants=number_atoms_and_pairs, memory_budget=0, num_workers=None
    )
    plain = source_of(full_store(), memory_budget=0)
    for batch in source.epoch([ORDER, torch.tensor([1])]):
        same(batch, plain.batch(batch.structures))
        wanted = number_atoms_and_pairs(batch.graph)
        assert torch.equal(batch.graph.extras["test/atom"], wanted.per_atom["test/atom"])


def test_vectors_are_computed_before_rounding() -> None:
    atoms = awkward()["skewed"]
    atoms.positions[1] += 1e4 * atoms.cell.array[0] / 3  # far outside: few digits are left
    store = store_of([atoms])
    exact = source_of(store).batch(torch.tensor([0])).graph.vectors
    rounded = source_of(store, dtype=torch.float32).batch(torch.tensor([0])).graph.vectors
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, exact.to(torch.float32))


def test_structures_without_pairs() -> None:
    source = source_of(full_store(), constants=number_atoms_and_pairs)
    graph = source.batch(torch.tensor([0, 1])).graph
    assert graph.vectors.shape == (0, 3)
    assert graph.extras["test/pair"].shape == (0, 2, 3)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_constants_come_back_to_their_atoms_and_pairs(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atomtrain.data.batch.CHUNK", chunk)
    source = source_of(full_store(), constants=number_atoms_and_pairs)
    assert "descriptors kept" in source.report()
    for structures in (ORDER, torch.tensor([2]), torch.arange(9)):
        graph = source.batch(structures).graph
        wanted = number_atoms_and_pairs(graph)
        assert torch.equal(graph.extras["test/atom"], wanted.per_atom["test/atom"])
        assert torch.equal(graph.extras["test/pair"], wanted.per_pair["test/pair"])


def test_constants_beyond_the_budget_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomtrain.data.batch.CHUNK", 1)
    pairs = source_of(full_store()).memory
    calls = []

    def constants(graph: AtomGraph) -> Constants:
        calls.append(graph)
        return number_atoms_and_pairs(graph)

    # the first structure has no pairs: what pairs need must be counted all the same
    of_atoms = 3 * 8 * len(full_store().types)
    of_pairs = 2 * 3 * 8 * len(source_of(full_store()).pairs.centers)  # type: ignore[union-attr]
    for budget, kept in (
        (of_atoms - 1, set()),
        (of_atoms, {"test/atom"}),
        (of_atoms + of_pairs - 1, {"test/atom"}),
        (of_atoms + of_pairs, {"test/atom", "test/pair"}),
    ):
        source = source_of(full_store(), constants=constants, memory_budget=pairs + budget)
        assert source.pairs is not None
        assert source.memory <= pairs + budget
        assert set(source.batch(ORDER).graph.extras) == {"charge"} | kept
    assert len(calls) == 1 + 3 * len(full_store())


def test_extra_data_is_in_the_graph() -> None:
    for budget in (0, 1 << 28):
        graph = source_of(full_store(), memory_budget=budget).batch(ORDER).graph
        assert graph.extras["charge"].flatten().tolist() == ORDER.tolist()


def test_workers_make_the_same_batches_and_leave_the_random_state_alone() -> None:
    here = source_of(full_store(), memory_budget=0)
    there = source_of(full_store(), memory_budget=0, num_workers=1)
    wanted = [ORDER, torch.tensor([0]), torch.tensor([5, 2])]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    made = list(there.epoch(wanted))
    assert torch.equal(torch.get_rng_state(), before)
    for structures, batch in zip(wanted, made, strict=True):
        assert torch.equal(batch.structures, structures)
        same(batch, here.batch(structures))


def test_moved_to_another_device() -> None:
    batch = source_of(full_store(), constants=number_atoms_and_pairs).batch(ORDER)
    moved = batch.to(torch.device("meta"))
    devices = {t.device.type for t in moved.graph[:-1]}
    devices |= {t.device.type for t in moved.graph.extras.values()}
    devices |= {t.device.type for t in moved.labels.values()}
    devices |= {t.device.type for t in moved.masks.values() if t is not None}
    assert devices == {"meta"} == {moved.n_atoms.device.type}
    same(batch.to(torch.device("cpu")), batch)


def test_no_structures_at_all() -> None:
    store = full_store().select(torch.zeros(0, dtype=torch.int64))
    assert list(source_of(store, constants=number_atoms_and_pairs).epoch([])) == []
