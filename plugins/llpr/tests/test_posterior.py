"""The distribution of a layer's weights: what Bayesian ridge regression says, and its size from errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from atomtrain_llpr import posterior

RIDGE = 0.3


def features(n: int, seed: int = 0, width: int = 12) -> Tensor:
    """Features some of whose directions are hardly there, and one never."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, dtype=torch.float64, generator=generator)
    scales = torch.logspace(1, -3, width, dtype=torch.float64)
    scales[-1] = 0.0
    turned = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64, generator=generator))[0]
    return (x * scales) @ turned


def test_the_variance_is_that_of_bayesian_ridge_regression() -> None:
    """Weights are known as well as noise and prior let them: checked by fitting many noisy labels."""
    noise, x, new = 0.1, features(40), features(7, 1)
    found = posterior.spectrum(x.t() @ x)
    taken, floor = posterior.taken_off(found, RIDGE), torch.full((1,), 1 / RIDGE).double()
    sigma = noise * posterior.spread(new, found.vectors, taken, floor)
    inverse = torch.linalg.inv(x.t() @ x + RIDGE * torch.eye(12, dtype=torch.float64))
    wanted = noise * (new @ inverse @ new.t()).diagonal().sqrt()
    torch.testing.assert_close(sigma, wanted, rtol=1e-4, atol=0)

    # true weights from the prior, labels with noise: the error of the fit has that standard deviation
    generator = torch.Generator().manual_seed(3)
    n = 20_000
    true = noise / math.sqrt(RIDGE) * torch.randn(12, n, dtype=torch.float64, generator=generator)
    labels = x @ true + noise * torch.randn(40, n, dtype=torch.float64, generator=generator)
    errors = new @ (inverse @ (x.t() @ labels) - true)
    torch.testing.assert_close(errors.std(1), sigma, rtol=0.03, atol=0)


def test_single_precision_where_it_does_no_harm() -> None:
    x, new = features(60), torch.cat([features(5, 1), 30 * features(5, 2)])
    found = posterior.spectrum(x.t() @ x)
    ridge = 1e-6 * float(found.values[-1])
    taken, floor = posterior.taken_off(found, ridge), torch.full((1,), 1 / ridge).double()
    exact = posterior.spread(new, found.vectors, taken, floor)
    well = found.values > posterior.WELL_KNOWN * ridge
    assert 0 < int(well.sum()) < 12
    rest = (found.vectors[:, ~well].float(), taken[~well].float())
    quick = posterior.quick_spread(new, found.vectors[:, well], taken[well], floor, *rest)
    torch.testing.assert_close(quick, exact, rtol=1e-5, atol=0)


def test_members_have_the_covariance() -> None:
    x = features(40)
    drawn = posterior.deviations(x.t() @ x, RIDGE, 40_000, seed=1)
    assert float(drawn.mean(1).abs().max()) < 1e-12
    inverse = torch.linalg.inv(x.t() @ x + RIDGE * torch.eye(12, dtype=torch.float64))
    torch.testing.assert_close(torch.cov(drawn), inverse, rtol=0, atol=0.03 * float(inverse.max()))
    assert drawn[:, :4].equal(posterior.deviations(x.t() @ x, RIDGE, 40_000, seed=1)[:, :4])


@pytest.mark.parametrize("method", ["squared_residuals", "absolute_residuals", "crps"])
def test_the_size_is_found_from_gaussian_errors(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    spreads = torch.rand(50_000, dtype=torch.float64, generator=generator) + 0.1
    normal = torch.randn(50_000, 2, dtype=torch.float64, generator=generator)
    errors = torch.tensor([0.5, 3.0]) * spreads[:, None] * normal
    errors[::7, 1] = torch.nan  # no label
    alpha = posterior.calibrated(errors, spreads, method)
    torch.testing.assert_close(alpha, torch.tensor([0.5, 3.0]).double(), rtol=0.02, atol=0)


def test_the_least_crps_is_the_least() -> None:
    generator = torch.Generator().manual_seed(1)
    spreads = torch.rand(300, dtype=torch.float64, generator=generator) + 0.1
    errors = torch.rand(300, 1, dtype=torch.float64, generator=generator) ** 3  # not Gaussian

    def crps(alpha: float) -> float:
        s = alpha * spreads[:, None]
        z = errors / s
        inner = z * torch.erf(z / math.sqrt(2)) + 2 * torch.exp(-(z**2) / 2) / math.sqrt(
            2 * math.pi
        )
        return float((s * (inner - 1 / math.sqrt(math.pi))).mean())

    alpha = float(posterior.calibrated(errors, spreads, "crps"))
    assert crps(alpha) < min(crps(0.99 * alpha), crps(1.01 * alpha))


def test_the_likeliest_size_is_that_of_squares() -> None:
    generator = torch.Generator().manual_seed(2)
    spreads = torch.rand(200, 1, dtype=torch.float64, generator=generator) + 0.1
    errors = torch.rand(200, 1, dtype=torch.float64, generator=generator)
    alpha = posterior.calibrated(errors, spreads[:, 0], "squared_residuals")
    best = posterior.surprise(errors, alpha * spreads)
    for other in (0.95, 1.05):
        assert best < posterior.surprise(errors, other * alpha * spreads)
