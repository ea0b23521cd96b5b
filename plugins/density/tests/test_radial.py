"""The table of radial functions: between knots, its derivatives, and where it ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atomtrain_density.radial import RadialTable

CUTOFF, N_KNOTS = 5.3, 200
SPACING = CUTOFF / N_KNOTS


def functions(r: Tensor) -> Tensor:
    """Three functions that end at the cutoff with value and slope, ``[n, 3]``."""
    k = torch.arange(1, 4, dtype=torch.float64)
    return (1 - r / CUTOFF).unsqueeze(1) ** 2 * torch.cos(r.unsqueeze(1) * k)


def table(width: float | None) -> RadialTable:
    r = torch.linspace(0, CUTOFF, N_KNOTS + 1, dtype=torch.float64, requires_grad=True)
    values = functions(r)
    slopes = [torch.autograd.grad(values[:, k].sum(), r, retain_graph=True)[0] for k in range(3)]
    return RadialTable(values.detach(), torch.stack(slopes, 1), SPACING, CUTOFF, width)


WIDTHS = pytest.mark.parametrize("width", [0.5, None])


@WIDTHS
def test_the_functions(width: float | None) -> None:
    radial = table(width)
    r = torch.linspace(0.01, CUTOFF + 1, 1000, dtype=torch.float64)
    fading = 0.5 + 0.5 * torch.cos(torch.pi * ((r - CUTOFF + 0.5) / 0.5).clamp(0, 1))
    fading = torch.where(r < CUTOFF, fading if width else 1.0, 0.0)
    expected = functions(r) * fading.unsqueeze(1)
    torch.testing.assert_close(radial(r), expected, rtol=0, atol=1e-6)
    assert radial.n_functions == 3


@WIDTHS
def test_both_ways_give_the_same(width: float | None) -> None:
    radial = table(width)
    r = torch.linspace(0.01, CUTOFF + 1, 1000, dtype=torch.float64)
    both = radial.values_and_derivatives(r)
    torch.testing.assert_close(radial(r), both[:, 0], rtol=1e-13, atol=1e-14)
    assert torch.equal(radial.combined(radial.places(r)), both)
    assert not radial.combined(torch.zeros(2, 9, dtype=torch.float64)).any()


@WIDTHS
def test_derivatives(width: float | None) -> None:
    radial = table(width)
    h = 1e-6
    r = torch.rand(300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = torch.cat([r * CUTOFF, torch.tensor([CUTOFF - 2 * h, CUTOFF - 0.5, SPACING])])
    slopes = radial.values_and_derivatives(r)[:, 1]
    numeric = (radial(r + h) - radial(r - h)) / (2 * h)
    torch.testing.assert_close(slopes, numeric, rtol=1e-6, atol=1e-6)
    r.requires_grad_(True)
    (by_autograd,) = torch.autograd.grad(radial(r)[:, 1].sum(), r)
    torch.testing.assert_close(by_autograd, slopes[:, 1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exactly_nothing_beyond_the_cutoff(dtype: torch.dtype) -> None:
    """Without a width derivatives too: the padded layout fills its gaps with vectors from there."""
    for width in (0.5, None):
        radial = table(width).to(dtype)
        r = torch.tensor([CUTOFF, CUTOFF * 3**0.5, 50.0], dtype=dtype, requires_grad=True)
        values = radial(r)
        both = radial.values_and_derivatives(r.detach())
        assert not values.any() and not both[:, 0].any()
        (slope,) = torch.autograd.grad(values.sum(), r)
        if width is None:
            assert not both.any() and not slope.any()
            assert not radial.combined(radial.places(r.detach())).any()


@WIDTHS
def test_scripted(width: float | None) -> None:
    radial = table(width)
    scripted = torch.jit.script(radial)
    r = torch.linspace(0.01, CUTOFF + 1, 100, dtype=torch.float64)
    for _ in range(3):  # it is optimised in between
        torch.testing.assert_close(scripted(r), radial(r), rtol=1e-13, atol=1e-15)

    class Derivatives(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.radial = radial

        def forward(self, r: Tensor) -> Tensor:
            places = self.radial.combined(self.radial.places(r))
            return torch.stack([places, self.radial.values_and_derivatives(r)])

    for both in torch.jit.script(Derivatives())(r):
        torch.testing.assert_close(both, radial.values_and_derivatives(r), rtol=1e-13, atol=1e-15)


def test_a_table_that_does_not_end_needs_a_width() -> None:
    ones = torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="has to end in zeros"):
        RadialTable(ones, 0 * ones, 1.0, 3.0, None)
    RadialTable(ones, 0 * ones, 1.0, 3.0, 0.5)
