"""Options of the core's heads and of the losses of classes, against plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from atomtrain.data import Label
from atomtrain.model.heads import Head
from atomtrain.targets import TargetInfo
from atomtrain.tasks import task_of


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


def loss(kind: str, name: str, info: TargetInfo, labels: torch.Tensor, **arguments: Any) -> Any:
    return task_of(kind).loss(name, arguments, info, Label(labels, per_atom=False))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, {"b": 3.0}, "balanced"])
def test_cross_entropy(weights: Any, smoothing: float) -> None:
    index = torch.tensor([0, 0, 0, 1, 2, 2])
    labels = functional.one_hot(index, 3).double()
    logits = torch.randn(6, 3, dtype=torch.float64)
    info = TargetInfo("mtt::x", kind="classes", classes=("a", "b", "c"), num_subtargets=3)
    made = loss("classes", "cross_entropy", info, labels, class_weights=weights,
                label_smoothing=smoothing)  # fmt: skip
    expected = {None: [1, 1, 1], "balanced": [6 / 9, 2, 1]}.get(
        weights if not isinstance(weights, dict) else "", [1, 3, 1]
    )
    numerator, count = made(logits, labels, None)
    by_torch = functional.cross_entropy(
        logits, index, torch.tensor(expected, dtype=torch.float64), label_smoothing=smoothing
    )
    assert float(numerator / count) == pytest.approx(float(by_torch))


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 1.0), (2.5, 2.5), ("balanced", 3.0)])
def test_binary_cross_entropy(weight: Any, expected: float) -> None:
    labels = torch.tensor([[0.0], [1.0], [0.0], [0.0]], dtype=torch.float64)
    logits = torch.randn(4, 1, dtype=torch.float64)
    info = TargetInfo("mtt::x", kind="binary", classes=("0", "1"))
    made = loss("binary", "binary_cross_entropy", info, labels, positive_weight=weight)
    numerator, count = made(logits, labels, None)
    by_torch = functional.binary_cross_entropy_with_logits(
        logits, labels, pos_weight=torch.tensor([expected], dtype=torch.float64)
    )
    assert float(numerator) / float(count) == pytest.approx(float(by_torch))
