"""Spherical harmonics of pair vectors: in plain operations, and with gradients by sphericart.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import Dict, List, Tuple

import numpy as np
import sphericart.torch
import torch
from torch import Tensor, nn


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
        self.degrees: Tensor
        self.register_buffer("polynomial", polynomial, persistent=False)
        self.register_buffer("select", select, persistent=False)
        degrees = torch.arange(size, dtype=torch.float64).sqrt().floor()
        self.register_buffer("degrees", degrees, persistent=False)

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


class HarmonicsAndGradients:
    """Harmonics with gradients in one call. Not a module: TorchScript must not see it.

    On a CPU they are sphericart's. Elsewhere they are made of plain operations, few and large: sphericart's kernels
    for GPUs are compiled when they are first called, by a library of one version of CUDA, which is not always the one
    that torch brings.
    """

    def __init__(self, max_angular: int) -> None:
        self.max_angular = max_angular
        self.calculator = sphericart.torch.SphericalHarmonics(max_angular)
        self._tables: Dict[Tuple[torch.device, torch.dtype], Tuple[SphericalHarmonics, Tensor]] = {}

    def compute(self, vectors: Tensor) -> Tuple[Tensor, Tensor]:
        """``[n, (L + 1)^2]`` and ``[n, 3, (L + 1)^2]``, derivatives in the vectors, of ``[n, 3]``."""
        if len(vectors) == 0:
            size = (self.max_angular + 1) ** 2
            return vectors.new_zeros((0, size)), vectors.new_zeros((0, 3, size))
        if vectors.device.type != "cpu":
            return self.plain(vectors)
        values, gradients = self.calculator.compute_with_gradients(vectors)
        return values, gradients

    @torch.no_grad()
    def plain(self, vectors: Tensor) -> Tuple[Tensor, Tensor]:
        """The same in plain operations.

        The gradient of ``r^l Y_lm`` is a combination of harmonics of the degree below (:func:`lowering`), and that
        of ``Y_lm`` follows from it.
        """
        where = vectors.device, vectors.dtype
        if where not in self._tables:
            harmonics = SphericalHarmonics(self.max_angular)
            table = lowering(harmonics).permute(2, 1, 0).flatten(1)
            self._tables[where] = harmonics.to(*where), table.to(*where)
        harmonics, table = self._tables[where]
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        directions = vectors / r
        values = harmonics.values(directions)
        solid = torch.mm(values[:, : table.shape[0]], table).reshape(len(vectors), 3, -1)
        along = (values * harmonics.degrees).unsqueeze(1)
        gradients = torch.addcmul(solid, directions.unsqueeze(2), along, value=-1.0)
        return values, gradients.div_(r.unsqueeze(2))

    def __deepcopy__(self, memo: object) -> "HarmonicsAndGradients":
        return HarmonicsAndGradients(self.max_angular)

    def __reduce__(self) -> "Tuple[type, Tuple[int]]":
        return HarmonicsAndGradients, (self.max_angular,)


@torch.enable_grad()
def lowering(harmonics: SphericalHarmonics) -> Tensor:
    """``[(L + 1)^2, 3, L^2]`` float64: gradients of solid harmonics in terms of those of the degree below.

    Found from values and gradients at random points: the combination is unique.
    """
    n_lower = harmonics.max_angular**2
    size = (harmonics.max_angular + 1) ** 2
    table = torch.zeros(size, 3, n_lower, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4 * size, 3, dtype=torch.float64, generator=generator).requires_grad_(True)
    r = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    values = harmonics.to(torch.float64)(x / r)
    for degree in range(1, harmonics.max_angular + 1):
        below = slice((degree - 1) ** 2, degree**2)
        solid = (values[:, below] * r ** (degree - 1)).detach()
        for k in range(degree**2, (degree + 1) ** 2):
            (gradient,) = torch.autograd.grad(
                (values[:, k] * r[:, 0] ** degree).sum(), x, retain_graph=True
            )
            table[k, :, below] = torch.linalg.lstsq(solid, gradient).solution.T
    table[table.abs() < 1e-10] = 0.0
    return table


def quadrature(degree: int) -> Tuple[np.ndarray, np.ndarray]:
    """Points ``[n, 3]`` and weights ``[n]`` on the unit sphere, exact up to ``degree`` (Lebedev's)."""
    from scipy.integrate import lebedev_rule

    points, weights = lebedev_rule(next(n for n in range(max(degree, 3) | 1, 32, 2)))
    return np.ascontiguousarray(points.T), weights


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
