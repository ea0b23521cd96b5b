"""Radial functions and spherical harmonics of pair vectors, in plain torch operations."""

import math
from typing import List, Tuple

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
        # from t^p times what the cutoff contributes to the weights of t^q in value and derivative
        slope = -0.5 * math.pi / self.width
        rule = torch.zeros(4, 2, 2, 4, dtype=torch.float64)
        for power in range(4):
            rule[power, 0, 0, power] = 1.0
            rule[power, 1, 1, power] = slope
            if power > 0:
                rule[power - 1, 0, 1, power] = power / self.spacing
        self.product_rule: Tensor
        self.rows: Tensor
        self.register_buffer("product_rule", rule.reshape(8, 8), persistent=False)
        self.register_buffer("rows", torch.arange(4).repeat(2), persistent=False)

    def cutoff_function(self, r: Tensor) -> Tensor:
        """Shifted cosine ``[n]``: 1 up to ``cutoff - width``, then smoothly to 0 at the cutoff.

        Exactly 0 from there on: places without a pair rely on it.
        """
        x = ((r - (self.cutoff - self.width)) / self.width).clamp(0.0, 1.0)
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
        phase = ((r - (self.cutoff - self.width)) * (math.pi / self.width)).clamp(0.0, math.pi)
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

    def values(self, directions: Tensor) -> Tensor:
        """The same as constants of autograd, in fewer operations."""
        shape = [directions.shape[0], self.max_angular]
        x, y, z = directions.unbind(1)
        heights = z.unsqueeze(1).expand(shape).cumprod(1)
        powers = torch.complex(x, y).unsqueeze(1).expand(shape).cumprod(1)
        around = torch.view_as_real(powers).flatten(1)
        return torch.addmm(self.polynomial[0], heights, self.polynomial[1:]) * torch.addmm(
            self.select[0], around, self.select[2:]
        )


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
