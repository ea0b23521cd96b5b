"""Radial functions as a table of cubic polynomials, and their derivatives.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

KNOTS = 2000
STRETCH = 0.4
"""of the cutoff: over so much distance the coordinate of stretched functions bends"""


class RadialTable(nn.Module):
    """Radial functions side by side, by one look-up of cubic polynomials for all of them.

    ``knots [n_knots + 1, n_functions]`` and ``slopes`` are values and d/dr in float64 at distances
    ``0, spacing, 2 spacing, ...`` up to the cutoff. They are multiplied by a cutoff function, which falls
    over the last ``width``. Without a width the table has to end in zeros, value and slope.
    """

    width: Optional[float]

    def __init__(
        self, knots: Tensor, slopes: Tensor, spacing: float, cutoff: float, width: Optional[float]
    ) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        self.width = None if width is None else float(width)
        self.spacing = float(spacing)
        self.n_functions = knots.shape[1]
        if width is None and max(_end(knots), _end(slopes)) > 1e-8:
            raise ValueError("a radial table without a width has to end in zeros, value and slope")
        rise = knots[1:] - knots[:-1]
        left, right = slopes[:-1] * self.spacing, slopes[1:] * self.spacing
        # cubic Hermite interpolation as a polynomial in t = (r - knot) / spacing
        table = torch.stack(
            [knots[:-1], left, 3 * rise - 2 * left - right, left + right - 2 * rise], dim=1
        )
        self.table: Tensor
        self.register_buffer("table", table, persistent=False)  # [n_knots, 4, n_functions]
        # from t^p times what the cutoff contributes to the weights of t^q in value and derivative
        rule = torch.zeros(4, 2, 2, 4, dtype=torch.float64)
        for power in range(4):
            rule[power, 0, 0, power] = 1.0
            if self.width is not None:
                rule[power, 1, 1, power] = -0.5 * math.pi / self.width
            if power > 0:
                rule[power - 1, 0, 1, power] = power / self.spacing
        if self.width is None:  # the cutoff contributes one number, not two
            rule = rule[:, :1]
        self.product_rule: Tensor
        self.rows: Tensor
        self.register_buffer("product_rule", rule.reshape(-1, 8), persistent=False)
        self.register_buffer("rows", torch.arange(4).repeat(2), persistent=False)

    def cutoff_function(self, r: Tensor) -> Tensor:
        """Shifted cosine ``[n]``: 1 up to ``cutoff - width``, then smoothly to 0 at the cutoff.

        Exactly 0 from there on: places without a pair rely on it. Without a width a step.
        """
        width = self.width
        if width is None:
            return (r < self.cutoff).to(r.dtype)
        x = ((r - (self.cutoff - width)) / width).clamp(0.0, 1.0)
        return torch.where(r < self.cutoff, 0.5 * (1.0 + torch.cos(math.pi * x)), 0.0)

    def forward(self, r: Tensor) -> Tensor:
        """Values ``[n_pairs, n_functions]`` at distances ``r [n_pairs]``."""
        x = r.clamp(max=self.cutoff) / self.spacing  # powers of t would be large
        k = x.detach().floor().clamp(0, self.table.shape[0] - 1)
        t = (x - k).unsqueeze(1)
        c0, c1, c2, c3 = self.table.index_select(0, k.to(torch.int64)).unbind(1)
        return (c0 + t * (c1 + t * (c2 + t * c3))) * self.cutoff_function(r).unsqueeze(1)

    def values_and_derivatives(self, r: Tensor) -> Tensor:
        """Values and d/dr, ``[n_pairs, 2, n_functions]``, as constants of autograd.

        Each row is a weighted sum of four rows of the table, which torch gathers and sums in one
        pass: several times quicker than the polynomials of :meth:`forward`, and the same numbers.
        """
        knot, weights = self._at(r)
        return self._combined(knot, weights)

    def places(self, r: Tensor) -> Tensor:
        """Where distances lie in the table, ``[n_pairs, 9]``, for :meth:`combined`."""
        knot, weights = self._at(r)
        return torch.cat([weights, knot.unsqueeze(1)], dim=1)

    def combined(self, places: Tensor) -> Tensor:
        """``[n_pairs, 2, n_functions]`` from :meth:`places`; zero where these are."""
        return self._combined(places[:, 8], places[:, :8])

    def _at(self, r: Tensor) -> Tuple[Tensor, Tensor]:
        """The knot before each distance, and the weights of its four rows in the value and in d/dr."""
        x = r.clamp(max=self.cutoff) / self.spacing  # powers of t would be large
        knot = x.floor().clamp(max=self.table.shape[0] - 1)
        t = (x - knot).unsqueeze(1)
        width = self.width
        if width is None:
            one = (r < self.cutoff).to(r.dtype).unsqueeze(1)
        else:
            phase = ((r - (self.cutoff - width)) * (math.pi / width)).clamp(0.0, math.pi)
            # the cutoff function and, less a factor that product_rule has, its derivative
            one = torch.stack([0.5 + 0.5 * torch.cos(phase), torch.sin(phase)], dim=1)
        first = one * t
        second = first * t
        weights = torch.cat([one, first, second, second * t], dim=1) @ self.product_rule
        return knot, weights

    def _combined(self, knot: Tensor, weights: Tensor) -> Tensor:
        rows = torch.add(self.rows, knot.to(torch.int64).unsqueeze(1), alpha=4).reshape(-1, 4)
        table = self.table.flatten(0, 1)
        both = embedding_bag(rows, table, mode="sum", per_sample_weights=weights.reshape(-1, 4))
        return both.reshape(knot.shape[0], 2, table.shape[1])


def bessel_table(cutoff: float, n_functions: int) -> RadialTable:
    """``sqrt(2 / c) sin(k pi r / c) / r`` for k = 1 ... n, times a polynomial that ends at the cutoff c.

    Functions and polynomial (p = 5: value, slope and curvature end in zero) are as of DimeNet, doi
    10.48550/arXiv.2003.03123.
    """
    r = torch.linspace(0.0, cutoff, KNOTS + 1, dtype=torch.float64)
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
    return RadialTable(knots, derivatives, cutoff / KNOTS, cutoff, None)


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


def _end(table: Tensor) -> float:
    """The last row of a table, by its largest entry."""
    return float(table[-1].abs().max()) / max(float(table.abs().max()), 1e-300)
