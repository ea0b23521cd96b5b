"""Additions of low rank: what autograd makes of factors, and what it says of a model that has none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from atomtrain.errors import OptionsError
from atomtrain.options import LowRankSection
from atomtrain.training.lora import LowRank


class Layers(nn.Module):
    """A matrix, a stack of them by element, and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.stack = nn.Parameter(torch.randn(3, 4, 6))
        self.scale = nn.Parameter(torch.randn(6))


def loss(linear: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
    x = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(2, 5)
    return (torch.einsum("ni,zij->nzj", (x @ linear.mT).tanh(), stack) ** 3).sum()


def test_gradients_are_those_of_factors() -> None:
    torch.manual_seed(0)
    model = Layers().double()
    bases = model.linear.weight.detach().clone(), model.stack.detach().clone()
    free = torch.zeros(3, 4, 6, dtype=torch.bool)
    free[1] = True  # a new element
    groups = [{"params": list(model.parameters()), "name": "encoder", "lr": 0.1}]
    low = LowRank(model, groups, LowRankSection(rank=2, alpha=6.0), {"stack": free}, seed=1)
    (group,) = low.groups
    assert (group["name"], group["lr"]) == ("encoder", 0.1)
    assert not model.scale.requires_grad and not model.linear.bias.requires_grad
    assert [tuple(p.shape) for p in group["params"]] == [
        (3, 4, 2), (3, 2, 6), (24,), (4, 2), (2, 5)
    ]  # fmt: skip
    with torch.no_grad():
        for p in group["params"]:
            p.add_(torch.randn_like(p))
    low.merge()
    loss(model.linear.weight, model.stack).backward(inputs=low.weights)  # type: ignore[no-untyped-call]
    low.pull()
    assert model.stack.grad is None

    ups, downs, new, up, down = (p.detach().clone().requires_grad_() for p in group["params"])
    stack = (bases[1] + 3.0 * ups @ downs).masked_fill(free, 0.0)
    stack = stack + torch.zeros_like(stack).masked_scatter(free, bases[1][free] + new)
    linear = bases[0] + 3.0 * up @ down
    torch.testing.assert_close(stack, model.stack.detach())
    loss(linear, stack).backward()  # type: ignore[no-untyped-call]
    for mine, p in zip((ups, downs, new, up, down), group["params"], strict=True):
        torch.testing.assert_close(mine.grad, p.grad)


def test_what_starts_anew_is_trained_whole() -> None:
    model = Layers()
    whole = torch.ones_like(model.linear.weight, dtype=torch.bool)
    groups = [{"params": list(model.parameters())}]
    low = LowRank(model, groups, LowRankSection(rank=1), {"linear.weight": whole}, seed=1)
    assert any(p is model.linear.weight for p in low.groups[0]["params"])


def test_another_rank_is_no_way_to_go_on() -> None:
    def of(rank: int) -> LowRank:
        model = Layers()
        return LowRank(
            model, [{"params": list(model.parameters())}], LowRankSection(rank=rank), {}, 1
        )

    of(2).load_state_dict(of(2).state_dict())
    with pytest.raises(ValueError, match=r"is not what finetune\.lora asks for now"):
        of(2).load_state_dict(of(3).state_dict())


def test_a_model_without_matrices() -> None:
    model = nn.LayerNorm(4)
    with pytest.raises(
        OptionsError, match="none of the weights that were trained before is a matrix"
    ):
        LowRank(model, [{"params": list(model.parameters())}], LowRankSection(), {}, 1)
