"""Tables of whole structures: in memory, beyond the budget in a file, on request in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from helpers.structures import source_of

from atomtrain.data import Kept, Label, fingerprint
from atomtrain.data.kept import Tables
from atomtrain.errors import OutputError
from atomtrain.graph import AtomGraph, n_structures, sum_over_structures
from atomtrain.model import Constants
from atomtrain_testing.predictions import store_of

EXAMPLES = {"a": torch.zeros(1, 3), "b": torch.zeros(1, dtype=torch.bfloat16)}


def _fill(tables: Tables) -> None:
    tables["a"][:] = torch.arange(15.0).view(5, 3)
    tables["b"][:] = 2.0


@pytest.mark.parametrize("budget", [10_000, 10])
def test_memory_and_scratch_hold_the_same(tmp_path: Path, budget: int) -> None:
    kept = Kept(budget, scratch=tmp_path)
    first = kept.tables("k", EXAMPLES, 5, _fill)
    assert torch.equal(first["a"], torch.arange(15.0).view(5, 3))
    assert first["b"].dtype == torch.bfloat16 and float(first["b"].sum()) == 10.0
    assert kept.tables("k", EXAMPLES, 5, lambda t: pytest.fail("filled twice")) is first
    assert list(tmp_path.iterdir()) == []  # nothing is left when the process is gone


def test_a_folder_is_for_later_runs(tmp_path: Path) -> None:
    Kept(0, folder=tmp_path).tables("k", EXAMPLES, 5, _fill)
    again = Kept(0, folder=tmp_path).tables("k", EXAMPLES, 5, lambda t: pytest.fail("not found"))
    assert torch.equal(again["a"], torch.arange(15.0).view(5, 3))
    other: list[int] = []
    Kept(0, folder=tmp_path).tables("other", EXAMPLES, 5, lambda t: other.append(1))
    assert other == [1]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def broken(tables: Tables) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Kept(0, folder=tmp_path).tables("k", EXAMPLES, 5, broken)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot keep features in"):
        Kept(0, folder=tmp_path / "file").tables("k", EXAMPLES, 5, _fill)


def test_batches_without_atoms() -> None:
    """A sum over atoms is all the model asks for; pairs and positions stay at home."""
    rng = np.random.default_rng(0)
    frames = [bulk("Cu", a=3.6, cubic=True).repeat((k + 1, 1, 1)) for k in range(3)]
    for atoms in frames:
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
    store = store_of(frames)
    store.labels["mtt::x"] = Label(torch.arange(3.0, dtype=torch.float64)[:, None], False)
    key = fingerprint(store, labels=False)

    def constants(graph: AtomGraph) -> Constants:
        lengths = torch.linalg.vector_norm(graph.vectors, dim=1)
        of_pair = graph.structure.index_select(0, graph.centers)
        found = sum_over_structures(lengths, of_pair, n_structures(graph))
        return Constants(per_structure={"lengths": found}, key="lengths")

    source = source_of(
        store, cutoff=3.0, constants=constants, memory_budget=10**6, num_workers=None,
        of_structures=True,
    )  # fmt: skip
    assert "features of structures kept" in source.report()
    batch = source.batch(torch.tensor([2, 0]))
    assert len(batch.graph.types) == 0 and batch.n_atoms.tolist() == [12.0, 4.0]
    assert batch.labels["mtt::x"].flatten().tolist() == [2.0, 0.0]
    plain = source_of(store, cutoff=3.0, memory_budget=0)
    wanted = constants(plain.batch(torch.tensor([2, 0])).graph).per_structure["lengths"]
    assert torch.allclose(batch.graph.extras["lengths"], wanted)
    store.positions[0, 0] += 1e-6
    assert fingerprint(store, labels=False) != key


def test_a_folder_that_gets_no_files(tmp_path: Path) -> None:
    """A dry run finds what is there, and leaves nothing."""
    for there in (False, True):
        kept = Kept(10_000, folder=tmp_path / "cache")
        kept.adds_files = False
        tables = kept.tables(
            "k", EXAMPLES, 5, _fill if not there else lambda t: pytest.fail("not found")
        )
        assert torch.equal(tables["a"], torch.arange(15.0).view(5, 3))
        if not there:
            assert list(tmp_path.iterdir()) == []
            Kept(0, folder=tmp_path / "cache").tables("k", EXAMPLES, 5, _fill)
