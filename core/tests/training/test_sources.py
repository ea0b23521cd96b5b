"""Which process gets what of a batch, and what is said of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ase import Atoms
from helpers.structures import source_of

from atomtrain.training.sources import Sources
from atomtrain_testing.predictions import store_of


def sources(sizes: list[int], processes: int, **hypers: Any) -> Sources:
    """Of chains of so many atoms."""
    store = store_of([Atoms(f"H{n}", [(0, 0, 1.0 * k) for k in range(n)]) for n in sizes])
    found = object.__new__(Sources)
    found._run = SimpleNamespace(  # type: ignore[assignment]
        processes=SimpleNamespace(rank=0, size=processes),
        train=store,
        hypers=SimpleNamespace(**{"batch_size": 4, "max_atoms_per_batch": None, **hypers}),
    )
    found._sources = {"train": source_of(store)}
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_processes_get_as_much_of_a_batch(size: int) -> None:
    made = sources([2, 30, 3, 4, 28, 5, 29, 2], size)
    batch = torch.tensor([7, 1, 2, 3, 4, 0, 6])
    shares = made._shared_out("train", batch)
    assert sorted(k for share in shares for k in share.tolist()) == sorted(batch.tolist())
    cost = [int(made._sources["train"].cost[share].sum()) for share in shares]  # type: ignore[union-attr]
    plain = [int(made._sources["train"].cost[batch[r::size]].sum()) for r in range(size)]  # type: ignore[union-attr]
    assert max(cost) - min(cost) < max(plain) - min(plain)
    place = batch.tolist().index
    assert all(list(map(place, s.tolist())) == sorted(map(place, s.tolist())) for s in shares)


def test_structures_alike_are_dealt_out_in_turn() -> None:
    made = sources([3] * 6, 2)
    batch = torch.tensor([5, 0, 3, 1])
    assert [s.tolist() for s in made._shared_out("train", batch)] == [[5, 3], [0, 1]]


def test_a_process_may_get_nothing() -> None:
    made = sources([2, 30, 3], 4)
    shares = made._shared_out("train", torch.tensor([0, 1, 2]))
    assert sorted(map(len, shares)) == [0, 1, 1, 1]


def test_what_is_said_of_batches() -> None:
    two = [torch.tensor([0, 1]), torch.tensor([2])]
    assert sources([3] * 3, 1).balance(two) == ""
    assert "4 to 60 atoms" in sources([4] * 20 + [60], 1).balance(two)
    packed = sources([5, 4, 9], 1, max_atoms_per_batch=10).balance(two)
    assert packed == "batches of up to 10 atoms are 90 % full"
    assert "% of the time of 2 processes is waiting" in sources([3, 9, 3], 2).balance(two)
