"""Optimisers, schedules, averaged weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from atomtrain.options import TrainerHypers
from atomtrain.training.optimisation import (
    AveragedWeights,
    Muon,
    build_optimizer,
    is_matrix,
    learning_rate_factor,
    orthogonalised,
)


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
    with average.shown():
        assert float(weight.detach()) == pytest.approx(0.1)
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


def test_matrices_are_orthogonalised() -> None:
    stack = torch.randn(5, 6, 9, generator=torch.Generator().manual_seed(0))
    stack[0] *= 1e-6  # each on its own, whatever its size
    u, values, v = torch.linalg.svd(orthogonalised(stack), full_matrices=False)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.25
    expected = torch.linalg.svd(stack, full_matrices=False)
    for k, (a, b) in enumerate(zip(u @ v, expected[0] @ expected[2], strict=True)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3, msg=f"matrix {k}")


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (3, 4, 7), (2, 3, 7, 4)])
def test_muon_takes_a_stack_matrix_by_matrix(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    start, gradient = (torch.randn(*shape, generator=generator) for _ in range(2))
    together = torch.nn.Parameter(start.clone())
    together.grad = gradient
    Muon([{"params": [together]}], lr=0.1).step()
    apart = [torch.nn.Parameter(m.clone()) for m in start.reshape(-1, *shape[-2:])]
    for p, g in zip(apart, gradient.reshape(-1, *shape[-2:]), strict=True):
        p.grad = g
    Muon([{"params": apart}], lr=0.1).step()
    torch.testing.assert_close(together.reshape(-1, *shape[-2:]), torch.stack(apart))
    size = (together.detach() - start).square().mean().sqrt()
    assert 0.7 * 0.02 < float(size) < 1.25 * 0.02  # a fifth of the rate, as Adam's steps


def test_muon_leaves_what_is_no_matrix_to_adam() -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = [(5,), (3, 1, 4), (4, 1), ()]
    mine = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    adam = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    assert not any(is_matrix(p) for p in mine)
    optimizers = [
        build_optimizer([{"params": p}], TrainerHypers(optimizer=kind, weight_decay=0.1))
        for p, kind in ((mine, "muon"), (adam, "adamw"))
    ]
    for _ in range(3):
        for p, q in zip(mine, adam, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(mine, adam, strict=True):
        torch.testing.assert_close(p, q)


def test_muon_keeps_its_state_and_the_names_of_groups() -> None:
    def some() -> tuple[list[torch.nn.Parameter], Muon]:
        generator = torch.Generator().manual_seed(3)
        shapes = ((3, 4), (4,), (2, 3, 4))
        made = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
        groups = [
            {"params": made[:2], "lr": 0.1, "name": "encoder"},
            {"params": made[2:], "lr": 0.2, "name": "heads"},
        ]
        return made, Muon(groups, lr=1.0)

    def step(made: list[torch.nn.Parameter], optimizer: Muon, k: int) -> None:
        for p in made:
            p.grad = (p.detach() + k).sin()
        made[0].grad = None if k == 1 else made[0].grad  # no gradient, no step
        optimizer.step()

    straight, optimizer = some()
    assert [(g["name"], g["lr"]) for g in optimizer.param_groups] == [
        ("encoder", 0.1),
        ("encoder", 0.1),
        ("heads", 0.2),
    ]
    for k in range(4):
        before = straight[0].detach().clone()
        step(straight, optimizer, k)
        assert torch.equal(before, straight[0].detach()) == (k == 1)
    first, optimizer = some()
    for k in range(2):
        step(first, optimizer, k)
    state = optimizer.state_dict()
    again, other = some()
    for p, q in zip(again, first, strict=True):
        p.data.copy_(q.detach())
    other.load_state_dict(state)
    for k in range(2, 4):
        step(again, other, k)
    for p, q in zip(again, straight, strict=True):
        assert torch.equal(p, q)
