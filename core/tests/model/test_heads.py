"""The core's heads: their options against plain torch, pooling, which targets get one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from helpers.models import Pairwise, energy_info
from helpers.structures import graph_of
from helpers.tasks import denoising, info

from atomtrain.errors import TargetError
from atomtrain.model.heads import Head, WithHeads, pool, pooled_width, split_targets
from atomtrain.targets import DatasetInfo, TargetInfo


def head(**options: Any) -> Head:
    torch.manual_seed(0)
    return Head(TargetInfo("mtt::x", per_atom=True, num_subtargets=2, head=options), 5)


def apply(made: Head, x: torch.Tensor) -> torch.Tensor:
    return made(x, None)  # a target of atoms needs no graph


def test_a_linear_head() -> None:
    made = head(hidden_dim=3, num_hidden=2, activation="identity", residual=False, bias=False)
    weights = [p for p in made.parameters() if p.dim() == 2]
    assert [tuple(w.shape) for w in weights] == [(3, 5), (3, 3), (3, 3), (2, 3)]
    assert len(list(made.parameters())) == 4  # no bias
    x = torch.randn(4, 5)
    expected = x
    for weight in weights:
        expected = expected @ weight.T
    assert torch.allclose(apply(made, x), expected, atol=1e-6)
    without = head(hidden_dim=3, num_hidden=1, activation="tanh", bias=True)
    first, block, last = (w for w in without.modules() if isinstance(w, torch.nn.Linear))
    hidden = first(x).tanh()
    hidden = hidden + block(hidden).tanh()  # residual is the default
    assert torch.allclose(apply(without, x), last(hidden), atol=1e-6)


def test_norm_and_dropout() -> None:
    x = torch.randn(6, 5)
    made = head(hidden_dim=8, norm="layer", dropout=0.5)
    assert any(isinstance(m, torch.nn.LayerNorm) for m in made.modules())
    assert not torch.equal(apply(made, x), apply(made, x))
    made.eval()
    assert torch.equal(apply(made, x), apply(made, x))
    assert any(isinstance(m, torch.nn.BatchNorm1d) for m in head(norm="batch").modules())


NAMES = {"names": ["solid", "liquid", "gas"]}


def test_pooling() -> None:
    graph = graph_of([molecule("H2O"), molecule("CH4")], cutoff=3.0)
    x = torch.randn(8, 2, dtype=torch.float64)
    for how, one in (("sum", torch.sum), ("mean", torch.mean), ("max", torch.amax)):
        expected = torch.stack([one(x[:3], 0), one(x[3:], 0)])
        torch.testing.assert_close(pool(x, graph, how), expected)
    selected = torch.zeros(8, dtype=torch.bool)
    selected[[0, 2]] = True
    graph.extras["atomtrain::selected"] = selected
    torch.testing.assert_close(pool(x, graph, "mean")[0], x[[0, 2]].mean(0))
    assert pool(x, graph, "max")[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_heads_have_the_sizes_asked_for(norm: str) -> None:
    options = {"hidden_dim": 5, "num_hidden": 2, "norm": norm, "activation": "gelu",
               "residual": norm != "layer", "bias": False, "dropout": 0.1}  # fmt: skip
    target = TargetInfo("t", num_subtargets=4, head=options)
    head = Head(target, 7).double().eval()
    graph = graph_of([molecule("H2O")], cutoff=3.0)
    x = torch.randn(3, 7, dtype=torch.float64)
    assert head(x, graph).shape == (3, 4)
    scripted = torch.jit.script(head)
    torch.testing.assert_close(scripted(x, graph), head(x, graph))
    linear = [m for m in head.modules() if isinstance(m, torch.nn.Linear)]
    assert [tuple(m.weight.shape) for m in linear] == [(5, 7), (5, 5), (5, 5), (4, 5)]
    assert all(m.bias is None for m in linear)
    assert any(isinstance(m, torch.nn.LayerNorm) for m in head.modules()) == (norm == "layer")


def test_who_predicts_what() -> None:
    def split(kinds: tuple[str, ...], **targets: TargetInfo) -> tuple[dict[str, Any], set[str]]:
        own, headed = split_targets(DatasetInfo("angstrom", (1,), targets), kinds, "arch")
        return {n: t.kind for n, t in own.targets.items()}, set(headed)

    energy = TargetInfo("e", quantity="energy")
    classes = info("classes", extra=NAMES)
    assert split(("scalar",), e=energy, c=classes) == ({"e": "scalar"}, {"c"})
    assert split(("scalar", "classes"), c=classes) == ({"c": "classes"}, set())
    # a vector for each atom is what an architecture that knows vectors predicts
    assert split(("scalar", "cartesian"), d=denoising()) == ({"d": "cartesian"}, set())
    # a head where one is asked for, and where the sum is not what is wanted
    headed = TargetInfo("e", quantity="energy", head={"hidden_dim": 8})
    gap = TargetInfo("gap", pooling="mean")
    assert split(("scalar",), e=headed, gap=gap) == ({}, {"e", "gap"})
    with pytest.raises(
        TargetError,
        match=r"cannot fit type 'denoising' .*made of vectors .*declares 'cartesian' in",
    ):
        split(("scalar",), d=denoising())
    with pytest.raises(TargetError, match="neither 'head' nor 'pooling' can be given for tensors"):
        split(("scalar", "cartesian"), v=TargetInfo("v", "cartesian", rank=1, pooling="mean"))


def test_features_are_needed() -> None:
    model = Pairwise(energy_info())
    with pytest.raises(TargetError, match="Pairwise gives no output 'feature'"):
        WithHeads(model, {"c": info("classes", extra=NAMES)})


def test_means_and_spreads() -> None:
    graph = graph_of([molecule("H2O"), molecule("H")], cutoff=3.0)
    values = torch.tensor([[1.0], [2.0], [6.0], [5.0]], dtype=torch.float64, requires_grad=True)
    found = {how: pool(values, graph, how) for how in ("sum", "mean", "max", "mean_std")}
    assert found["sum"].flatten().tolist() == [9.0, 5.0]
    assert found["mean"].flatten().tolist() == [3.0, 5.0]
    assert found["max"].flatten().tolist() == [6.0, 5.0]
    both = found["mean_std"].detach().numpy()
    assert np.allclose(both, [[3.0, np.std([1, 2, 6])], [5.0, 0.0]], atol=2e-5)
    assert pooled_width(7, "mean_std") == 14 and pooled_width(7, "max") == 7
    (gradient,) = torch.autograd.grad(found["mean_std"].sum(), values)
    assert bool(gradient.isfinite().all())
