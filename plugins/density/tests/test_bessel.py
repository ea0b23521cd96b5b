"""Bessel functions that end smoothly, against their formula."""

from __future__ import annotations

import pytest
import torch

from atomtrain_density.radial import bessel_table

CUTOFF = 4.7


def formula(r: torch.Tensor, n: int) -> torch.Tensor:
    k = torch.arange(1, n + 1, dtype=torch.float64) * torch.pi / CUTOFF
    x = (r / CUTOFF).unsqueeze(1)
    end = 1 - 21 * x**5 + 35 * x**6 - 15 * x**7
    return (2 / CUTOFF) ** 0.5 * torch.sin(k * r.unsqueeze(1)) / r.unsqueeze(1) * end


def test_values_and_derivatives() -> None:
    table = bessel_table(CUTOFF, 8)
    r = torch.linspace(0.05, CUTOFF, 977, dtype=torch.float64).requires_grad_(True)
    values, slopes = table.values_and_derivatives(r.detach()).unbind(1)
    expected = formula(r, 8)
    torch.testing.assert_close(values, expected.detach(), rtol=0, atol=1e-8)
    for k in range(8):
        (slope,) = torch.autograd.grad(expected[:, k].sum(), r, retain_graph=True)
        torch.testing.assert_close(slopes[:, k], slope, rtol=0, atol=3e-5)


def test_finite_at_zero_and_nothing_beyond_the_cutoff() -> None:
    table = bessel_table(CUTOFF, 8)
    near = table(torch.tensor([0.0, 1e-4, 5e-4, 2e-3], dtype=torch.float64))
    expected = formula(torch.tensor([1e-9], dtype=torch.float64), 8)
    torch.testing.assert_close(near, expected.expand(4, 8), rtol=1e-4, atol=0)
    r = torch.tensor([CUTOFF, CUTOFF + 1e-9, 9.0], dtype=torch.float64)
    assert not table.values_and_derivatives(r).any()


@pytest.mark.parametrize("h", [1e-2, 1e-3])
def test_value_slope_and_curvature_end_together(h: float) -> None:
    r = torch.tensor([CUTOFF - h], dtype=torch.float64)
    assert float(bessel_table(CUTOFF, 8)(r).abs().max()) < 50 * (h / CUTOFF) ** 3
