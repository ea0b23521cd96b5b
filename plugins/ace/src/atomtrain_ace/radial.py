"""The radial functions: spherical Bessel functions that end smoothly."""

from __future__ import annotations

import torch

from atomtrain_density.radial import RadialTable

N_KNOTS = 2000


def bessel_table(cutoff: float, n_functions: int) -> RadialTable:
    """``sqrt(2 / c) sin(k pi r / c) / r`` for k = 1 ... n, times a polynomial that ends at the cutoff c.

    Functions and polynomial (p = 5: value, slope and curvature end in zero) are as of DimeNet, doi
    10.48550/arXiv.2003.03123.
    """
    r = torch.linspace(0.0, cutoff, N_KNOTS + 1, dtype=torch.float64)
    k = torch.arange(1, n_functions + 1, dtype=torch.float64) * torch.pi / cutoff
    x = r / cutoff
    end = 1.0 - 21.0 * x**5 + 35.0 * x**6 - 15.0 * x**7
    end_slope = (-105.0 * x**4 + 210.0 * x**5 - 105.0 * x**6) / cutoff
    phase = r[:, None] * k
    values = k * torch.sinc(phase / torch.pi)
    over = r.clamp(min=1e-3)[:, None]
    slopes = (k * torch.cos(phase) - values) / over
    # near 0, where that is a difference of equal numbers
    slopes = torch.where(r[:, None] < 1e-3, -(k**3) * r[:, None] / 3.0, slopes)
    norm = (2.0 / cutoff) ** 0.5
    knots = norm * values * end[:, None]
    derivatives = norm * (slopes * end[:, None] + values * end_slope[:, None])
    knots[-1], derivatives[-1] = 0.0, 0.0  # which they are but for rounding
    return RadialTable(knots, derivatives, cutoff / N_KNOTS, cutoff, None)
