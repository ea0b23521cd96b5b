"""Optimisers, schedules, averaged weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from atomtrain.options import TrainerHypers
from atomtrain.training.optimisation import AveragedWeights, build_optimizer, learning_rate_factor


def test_schedule() -> None:
    rates = [learning_rate_factor(k, 100, 0.1, "cosine") for k in range(100)]
    assert rates[0] == 0.0 and rates[5] == 0.5 and rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5) and rates[99] < 0.001
    assert learning_rate_factor(90, 100, 0.1, "constant") == 1.0


def test_averaged_weights() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    average = AveragedWeights([weight], 0.9)
    weight.data.fill_(1.0)
    average.update()
    average.swap()
    assert float(weight.detach()) == pytest.approx(0.1)
    average.swap()
    assert float(weight.detach()) == 1.0


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [("adamw", 2.0 - 2.0 * 0.1 * 0.5), ("adam", 2.0 - 0.1)],  # decay alone, or as a gradient
)
def test_optimizer_and_weight_decay(optimizer: Any, expected: float) -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    hypers = TrainerHypers(optimizer=optimizer, weight_decay=0.5, learning_rate=0.1)
    weight.grad = torch.zeros(1)
    build_optimizer([{"params": [weight]}], hypers).step()
    assert weight.item() == pytest.approx(expected)
