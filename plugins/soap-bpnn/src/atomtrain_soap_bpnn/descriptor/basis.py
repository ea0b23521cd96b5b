"""Radial functions and spherical harmonics of pair vectors, in plain torch operations."""

import math
from typing import List

import torch
from spex.radial import LaplacianEigenstates
from torch import Tensor, nn
from torch.nn.functional import embedding_bag


class RadialBasis(nn.Module):
    """Laplacian eigenstates (doi 10.1063/5.0124363) times the cutoff function.

    torch-spex computes the splines' knots; here one look-up of cubic polynomials gives all degrees
    at once, ``sum(n_per_l)`` functions side by side.
    """

    def __init__(self, cutoff: float, width: float, max_angular: int, max_radial: int) -> None:
        super().__init__()
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)  # or torch-spex rounds the knots to float32
        try:
            basis = LaplacianEigenstates(
                cutoff=cutoff, max_radial=max_radial, max_angular=max_angular, trim=True
            )
        finally:
            torch.set_default_dtype(default)
        self.n_per_l: List[int] = [int(n) for n in basis.n_per_l]
        self.max_angular = max_angular
        self.cutoff = float(cutoff)
        self.width = float(width)
        knots = basis.spliner.spline_values.to(torch.float64)  # [n_knots + 1, n_functions]
        slopes = basis.spliner.spline_derivatives.to(torch.float64)
        self.spacing = float(basis.spliner.spline_spacing)
        rise = knots[1:] - knots[:-1]
        left, right = slopes[:-1] * self.spacing, slopes[1:] * self.spacing
        # cubic Hermite interpolation as a polynomial in t = (r - knot) / spacing
        table = torch.stack(
            [knots[:-1], left, 3 * rise - 2 * left - right, left + right - 2 * rise], dim=1
        )
        self.table: Tensor
        self.register_buffer("table", table, persistent=False)  # [n_knots, 4, n_functions]
        # from t^p times (fade, fade') to the weights of t^q's coefficients in value and derivative
        rule = torch.zeros(4, 2, 2, 4, dtype=torch.float64)
        for power in range(4):
            rule[power, 0, 0, power] = rule[power, 1, 1, power] = 1.0
            if power > 0:
                rule[power - 1, 0, 1, power] = power / self.spacing
        self.product_rule: Tensor
        self.four: Tensor
        self.register_buffer("product_rule", rule.reshape(8, 8), persistent=False)
        self.register_buffer("four", torch.arange(4), persistent=False)

    def cutoff_function(self, r: Tensor) -> Tensor:
        """Shifted cosine ``[n]``: 1 up to ``cutoff - width``, then smoothly to 0 at the cutoff.

        Exactly 0 from there on: places without a pair rely on it.
        """
        x = ((r - (self.cutoff - self.width)) / self.width).clamp(0.0, 1.0)
        return torch.where(r < self.cutoff, 0.5 * (1.0 + torch.cos(math.pi * x)), 0.0)

    def forward(self, r: Tensor) -> Tensor:
        """Values ``[n_pairs, n_functions]`` at distances ``r [n_pairs]``."""
        x = r / self.spacing
        k = x.detach().floor().clamp(0, self.table.shape[0] - 1)
        t = (x - k).unsqueeze(1)
        c0, c1, c2, c3 = self.table.index_select(0, k.to(torch.int64)).unbind(1)
        return (c0 + t * (c1 + t * (c2 + t * c3))) * self.cutoff_function(r).unsqueeze(1)

    def values_and_derivatives(self, r: Tensor) -> Tensor:
        """Values and d/dr, ``[n_pairs, 2, n_functions]``, as constants of autograd.

        Each row is a weighted sum of four rows of the table, which torch gathers and sums in one
        pass: several times quicker than the polynomials of :meth:`forward`, and the same numbers.
        """
        return self.combined(self.places(r))

    def places(self, r: Tensor) -> Tensor:
        """Where distances lie in the table, ``[n_pairs, 9]``: the weights of four rows for the value,
        four for d/dr, and the first of these rows, as a floating-point number like the others."""
        x = r.clamp(max=self.cutoff) / self.spacing  # no large slopes where there is no pair
        k = x.floor().clamp(max=self.table.shape[0] - 1)
        t = (x - k).unsqueeze(1)
        square = t * t
        powers = torch.cat([torch.ones_like(t), t, square, square * t], dim=1)
        phase = math.pi * ((r - (self.cutoff - self.width)) / self.width).clamp(0.0, 1.0)
        fade = (0.5 + 0.5 * torch.cos(phase)) * (r < self.cutoff)
        fading = (-0.5 * math.pi / self.width) * torch.sin(phase)
        faded = powers.unsqueeze(2) * torch.stack([fade, fading], dim=1).unsqueeze(1)
        return torch.cat([faded.flatten(1) @ self.product_rule, 4.0 * k.unsqueeze(1)], dim=1)

    def combined(self, places: Tensor) -> Tensor:
        """``[n_pairs, 2, n_functions]``; zero where all weights are."""
        n = places.shape[0]
        rows = places[:, 8:].to(torch.int64) + self.four
        rows = rows.unsqueeze(1).expand(n, 2, 4).reshape(2 * n, 4)
        weights = places[:, :8].reshape(2 * n, 4)
        table = self.table.flatten(0, 1)
        both = embedding_bag(rows, table, mode="sum", per_sample_weights=weights)
        return both.reshape(n, 2, table.shape[1])


class SphericalHarmonics(nn.Module):
    """Real spherical harmonics, orthonormal on the sphere, m from -l to l, degrees side by side.

    ``Y_lm = Q_lm(z) Re or Im (x + i y)^|m|`` with a polynomial Q of the unit vector's z: powers of z
    times constants, times powers of x + i y. Nothing is singular anywhere on the sphere, and no
    custom operator is needed. Same convention as sphericart.
    """

    def __init__(self, max_angular: int) -> None:
        super().__init__()
        self.max_angular = max_angular
        size = (max_angular + 1) ** 2
        polynomial = torch.zeros(max_angular + 1, size, dtype=torch.float64)
        select = torch.zeros(2 * (max_angular + 1), size, dtype=torch.float64)
        for degree in range(max_angular + 1):
            legendre = _legendre(degree)
            for m in range(-degree, degree + 1):
                k = abs(m)
                norm = math.sqrt(
                    (2 * degree + 1)
                    / (4 * math.pi)
                    * math.factorial(degree - k)
                    / math.factorial(degree + k)
                    * (2.0 if m else 1.0)
                )
                column = degree * degree + degree + m
                for power, c in enumerate(_derivative(legendre, k)):
                    polynomial[power, column] = norm * c
                select[2 * k + (1 if m < 0 else 0), column] = 1.0
        self.polynomial: Tensor
        self.select: Tensor
        self.register_buffer("polynomial", polynomial, persistent=False)
        self.register_buffer("select", select, persistent=False)

    def forward(self, directions: Tensor) -> Tensor:
        """Harmonics ``[n_pairs, (max_angular + 1)^2]`` of unit vectors ``[n_pairs, 3]``."""
        x, y, z = directions.unbind(1)
        w = torch.complex(x, y)
        one = torch.ones_like(z)
        heights = [one]
        powers = [torch.complex(one, torch.zeros_like(one))]
        for _ in range(self.max_angular):
            heights.append(heights[-1] * z)
            powers.append(powers[-1] * w)
        around = torch.view_as_real(torch.stack(powers, dim=1)).flatten(1)
        return (torch.stack(heights, dim=1) @ self.polynomial) * (around @ self.select)


def _legendre(degree: int) -> List[float]:
    """Coefficients of the Legendre polynomial, lowest power first (Bonnet's recursion)."""
    before, current = [1.0], [0.0, 1.0]
    if degree == 0:
        return before
    for n in range(1, degree):
        following = [0.0] + [(2 * n + 1) / (n + 1) * c for c in current]
        for power, c in enumerate(before):
            following[power] -= n / (n + 1) * c
        before, current = current, following
    return current


def _derivative(coefficients: List[float], order: int) -> List[float]:
    for _ in range(order):
        coefficients = [power * c for power, c in enumerate(coefficients)][1:]
    return coefficients
