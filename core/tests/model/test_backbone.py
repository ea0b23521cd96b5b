"""A trained model inside another one: frozen, kept whole, computed once where nothing moves."""

from __future__ import annotations

import copy

import pytest
import torch
from ase.build import molecule
from helpers.equivariant import Moments
from helpers.models import Pairwise, energy_info
from helpers.structures import graph_of
from torch import Tensor, nn

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model import Backbone, with_leaves
from atomtrain.model.backbone import embedded_checkpoints

CHECKPOINT = {"architecture": {"name": "moments"}}


class Wrapper(nn.Module):
    """Just enough around a backbone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = Backbone(Moments(energy_info()), CHECKPOINT, "inner")
        self.linear = nn.Linear(self.inner.n_features, 1)

    def forward(self, graph: AtomGraph) -> Tensor:
        """``[n_atoms, 1]``"""
        return self.linear(self.inner(graph))


def graph(model: Backbone, keep: bool) -> AtomGraph:
    return graph_of(
        [molecule("CH3OH"), molecule("H2O")], cutoff=model.cutoff, dtype=torch.float32,
        constants=model.constants if keep else None,
    )  # fmt: skip


def test_its_weights_are_not_in_the_state() -> None:
    model = Wrapper()
    assert set(model.state_dict()) == {"linear.weight", "linear.bias"}
    other = Wrapper()
    with torch.no_grad():
        other.linear.weight.fill_(1.0)
        other.inner.model.elements.fill_(2.0)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.linear.weight, other.linear.weight)
    assert not torch.equal(model.inner.model.elements, other.inner.model.elements)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({"linear.bias": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict({**model.state_dict(), "extra": torch.zeros(1)})


def test_it_is_frozen_and_kept_whole() -> None:
    model = Wrapper().train()
    assert not model.inner.training and not model.inner.model.training
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "linear.weight",
        "linear.bias",
    ]
    state = model.state_dict()
    last, best, embedded = embedded_checkpoints(copy.deepcopy(model), state, None)
    assert (set(last), best, embedded) == (set(state), None, {"inner": CHECKPOINT})
    assert embedded_checkpoints(model.linear, {}, None) == ({}, None, {})


def test_kept_features_are_used_where_nothing_moves() -> None:
    model = Wrapper()
    kept, fresh = graph(model.inner, True), graph(model.inner, False)
    assert torch.equal(model.inner(kept), model.inner(fresh))
    spoilt = kept._replace(extras={"backbone/feature": torch.zeros_like(model.inner(fresh))})
    assert not model.inner(spoilt).any()
    moving = with_leaves(spoilt)  # forces are wanted: what is kept has no derivative
    assert torch.equal(model.inner(moving), model.inner(fresh))
    assert torch.autograd.grad(model(moving).sum(), moving.vectors)[0].any()


def test_it_scripts() -> None:
    model = Wrapper()
    fresh = graph(model.inner, False)
    torch.testing.assert_close(torch.jit.script(model)(fresh), model(fresh))


def test_a_model_without_features() -> None:
    with pytest.raises(TargetError, match="Pairwise cannot be a backbone: it offers no output"):
        Backbone(Pairwise(energy_info()), {})
