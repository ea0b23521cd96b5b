"""Radial functions that are finer where atoms are bonded than at the cutoff."""

from __future__ import annotations

import math

import torch

from atomtrain_density.radial import RadialTable

KNOTS = 2000
STRETCH = 0.4
"""of the cutoff: over so much distance the coordinate bends"""


def stretched_table(cutoff: float, n_functions: int) -> RadialTable:
    """``cos(k pi u)``, k = 0 ... n - 1, times a polynomial that ends at the cutoff c with value, slope and curvature 0.

    ``u = (1 - exp(-r / b)) / (1 - exp(-c / b))`` with b = ``STRETCH`` c. All have norm 1 in space.
    """
    r = torch.linspace(0.0, cutoff, KNOTS + 1, dtype=torch.float64)[:, None]
    k = math.pi * torch.arange(n_functions, dtype=torch.float64)
    b = STRETCH * cutoff
    whole = 1.0 - math.exp(-1.0 / STRETCH)
    u, u_slope = (1.0 - torch.exp(-r / b)) / whole, torch.exp(-r / b) / (b * whole)
    x = r / cutoff
    end = 1.0 - 21.0 * x**5 + 35.0 * x**6 - 15.0 * x**7
    end_slope = (-105.0 * x**4 + 210.0 * x**5 - 105.0 * x**6) / cutoff
    values, slopes = torch.cos(k * u) * end, torch.cos(k * u) * end_slope
    slopes -= k * torch.sin(k * u) * u_slope * end
    values[-1], slopes[-1] = 0.0, 0.0  # which they are but for rounding
    norm = (values.square() * r.square()).sum(0).mul(cutoff / KNOTS).rsqrt()
    return RadialTable(values * norm, slopes * norm, cutoff / KNOTS, cutoff, None)
