"""What is said of predicted standard deviations, on errors that are known."""

from __future__ import annotations

import math

import pytest
import torch

from atomtrain.training.reliability import Reliability, spread_of_gradients

GENERATOR = torch.Generator().manual_seed(5)
SIGMA = torch.rand(40_000, 1, dtype=torch.float64, generator=GENERATOR) + 0.5
NORMAL = torch.randn(40_000, 1, dtype=torch.float64, generator=GENERATOR)


def test_gaussian_errors_of_the_right_size() -> None:
    found = Reliability.of(SIGMA * NORMAL, SIGMA)
    assert found.count == 40_000
    assert found.ratio == pytest.approx(1.0, abs=0.01)
    assert found.beyond_two_sigma == pytest.approx(0.0455, abs=0.004)
    assert found.area < 0.005
    for level, share in zip(found.levels, found.shares, strict=True):
        assert share == pytest.approx(level, abs=0.01)
    # the entropy of a Gaussian of deviation 1, and the mean logarithm of all deviations
    entropy = 0.5 * math.log(2 * math.pi * math.e) + float(SIGMA.log().mean())
    assert found.nll == pytest.approx(entropy, abs=0.02)
    # even of a perfect sigma one error says little
    assert found.rank_correlation == pytest.approx(found.rank_if_gaussian, abs=0.02)
    assert 0.2 < found.rank_if_gaussian < 0.4
    assert "RMS of error / uncertainty 1, 4." in found.line() and "% beyond twice" in found.line()


@pytest.mark.parametrize(("factor", "area"), [(0.5, 0.2048), (2.0, 0.2048)])
def test_errors_of_another_size(factor: float, area: float) -> None:
    """Twice too large either way: the curve has the same area above the diagonal as below."""
    found = Reliability.of(factor * SIGMA * NORMAL, SIGMA)
    assert found.ratio == pytest.approx(factor, abs=0.02)
    assert found.area == pytest.approx(area, abs=0.01)
    best = Reliability.of(factor * SIGMA * NORMAL, factor * SIGMA)
    assert found.nll > best.nll


def test_ranks() -> None:
    errors, sigma = torch.tensor([-3.0, 1.0, 2.0, 2.0]), torch.tensor([0.3, 0.1, 0.2, 0.2])
    assert Reliability.of(errors, sigma).rank_correlation == pytest.approx(1.0)
    assert Reliability.of(errors, 1 / sigma).rank_correlation == pytest.approx(-1.0)
    same = Reliability.of(errors, torch.ones(4))
    assert math.isnan(same.rank_correlation) and "rank" not in same.line()


def test_what_has_no_label_is_left_out() -> None:
    errors = torch.tensor([1.0, math.nan, -1.0])
    found = Reliability.of(errors, torch.ones(3))
    assert found.count == 2 and found.ratio == pytest.approx(1.0)
    assert Reliability.of(errors[1:2], torch.ones(1)).count == 0


def test_the_spread_of_derivatives() -> None:
    x = [torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (2, 1)]
    weights = torch.randn(3, 5, dtype=torch.float64)
    members = torch.stack([(part @ weights).sum(0) for part in x])  # [2, 5]
    found = spread_of_gradients(members, x)
    wanted = weights.std(1).expand(3, 3)
    torch.testing.assert_close(found, wanted)
