"""Batches of an epoch: a function of seed and epoch alone."""

from __future__ import annotations

from typing import Any

import torch

from atomtrain.data import Limits, epoch_batches


def batches(
    n_atoms: list[int], shuffled: tuple[int, int] | None = None, **limits: Any
) -> list[list[int]]:
    made = epoch_batches(torch.tensor(n_atoms), 3, shuffled=shuffled, limits=Limits(**limits))
    return [b.tolist() for b in made]


def test_in_order() -> None:
    assert batches([1] * 7) == [[0, 1, 2], [3, 4, 5], [6]]


def test_last_batch_is_dropped_unless_it_is_the_only_one() -> None:
    assert batches([1] * 7, drop_last=True) == [[0, 1, 2], [3, 4, 5]]
    assert batches([1] * 6, drop_last=True) == [[0, 1, 2], [3, 4, 5]]
    assert batches([1] * 2, drop_last=True) == [[0, 1]]


def test_shuffled_by_seed_and_epoch() -> None:
    one = batches([1] * 30, (7, 0))
    assert one == batches([1] * 30, (7, 0))
    assert sorted(k for batch in one for k in batch) == list(range(30))
    assert one != batches([1] * 30, (7, 1))
    assert one != batches([1] * 30, (8, 0))


def test_batches_outside_the_bounds_are_left_out() -> None:
    sizes = [1, 1, 1, 5, 5, 5, 2, 2, 2]
    assert batches(sizes, bounds=(4, None)) == [[3, 4, 5], [6, 7, 8]]
    assert batches(sizes, bounds=(None, 6)) == [[0, 1, 2], [6, 7, 8]]


def test_packing_by_atoms() -> None:
    assert batches([4, 4, 3, 20, 5, 10], max_atoms=10) == [[0, 1], [2, 4], [5]]
    assert batches([4, 4, 3, 20, 5, 10], max_atoms=10, min_atoms=9) == [[5]]
    assert batches([20, 30], max_atoms=10) == []


def test_nothing_to_batch() -> None:
    assert batches([]) == []
