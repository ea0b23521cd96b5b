"""Making things before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from helpers.frames import awkward

from atomtrain.data import Batch, BatchSource
from atomtrain.data.ahead import ahead
from atomtrain.data.batch import moved_together
from atomtrain.graph import HOST, AtomGraph
from atomtrain_testing.predictions import store_of


def _numbers(n: int, seen: list[int]) -> Iterator[int]:
    for k in range(n):
        if k == 7:
            raise ValueError("seven")
        seen.append(k)
        yield k


def test_items_come_in_their_order_and_errors_where_they_are_asked_for() -> None:
    assert list(ahead(_numbers(7, []), 2)) == list(range(7))
    found: list[int] = []
    with pytest.raises(ValueError, match="seven"):
        for item in ahead(_numbers(9, []), 2):
            found.append(item)
    assert found == list(range(7))


def test_who_leaves_early_stops_the_thread() -> None:
    seen: list[int] = []
    made = ahead(_numbers(7, seen), 2)
    assert next(made) == 0
    made.close()  # type: ignore[attr-defined]
    assert len(seen) < 7
    assert not [t for t in threading.enumerate() if t.name == "batches"]


def test_tensors_that_travel_together_arrive_as_they_were() -> None:
    sent = [
        torch.arange(5),
        torch.rand(3, 2),
        torch.zeros(0, 3),
        torch.tensor([[True], [False]]),
        torch.tensor(7),
    ]
    for there, here in zip(moved_together(sent, torch.device("cpu")), sent, strict=True):
        assert there.dtype == here.dtype and torch.equal(there, here)


def test_what_a_program_needs_to_know_stays_on_the_cpu() -> None:
    """``meta`` stands for a GPU: it has shapes, and no numbers to wait for."""
    one = torch.zeros(1)
    extras = {HOST + "atoms": torch.tensor([3]), "atoms/order": torch.arange(3)}
    graph = AtomGraph(one, one, one, one, one, one, one, one, one, extras)
    moved = Batch(graph, {}, {}, torch.arange(1), one).to(torch.device("meta")).graph
    assert {k: v.device.type for k, v in moved.extras.items()} == {
        HOST + "atoms": "cpu",
        "atoms/order": "meta",
    }
    assert moved.positions.device.type == "meta"


def test_batches_for_a_gpu_bring_their_layout() -> None:
    store = store_of(list(awkward().values())[:2])

    def layout(graph: AtomGraph) -> dict[str, torch.Tensor]:
        return {HOST + "atoms": torch.tensor([len(graph.types)])}

    for device, expected in (("cpu", set()), ("meta", {HOST + "atoms"})):
        source = BatchSource(store, 3.0, torch.float32, device=torch.device(device), layout=layout)
        (batch,) = source.epoch([torch.arange(2)])
        assert batch.graph.extras.keys() == expected
        assert batch.graph.vectors.device.type == device
