"""Equivariant bases of an atom's neighbourhood, built from its density, and what couples them.

A tensor of degree l and parity sigma is predicted as a sum of ``2 l + 1`` (or twice as many) basis
tensors with invariant coefficients. The basis of degree 1 is three vectors, learnt contractions of the
density of degree 1. Higher degrees are products of the solid harmonics of these vectors: with
``v1, v2, v3`` the products ``R_a(v1) x R_(l-a)(v2)`` and ``[R_a(v1) x R_(l-1-a)(v2)] x v3``, coupled
to the largest degree; three vectors that span space make them a complete basis. Pseudotensors get the
triple product of three further vectors as a factor.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import List

import numpy as np
import torch
import wigners
from torch import Tensor, nn

from atomtrain_density.elements import BySpecies, LinearBySpecies

PSEUDO_SPECIES = 4


class DensityContraction(nn.Module):
    """Learnt linear combinations of one degree's density: ``[n_atoms, m, n_species * n] -> [..., n_out]``.

    With elements kept ``apart`` the weights belong to the center's element; otherwise
    elements are mixed into pseudo-elements and the center's element gives factors.
    """

    def __init__(self, n_species: int, n_radial: int, n_out: int, apart: bool) -> None:
        super().__init__()
        self.apart = apart
        if n_out == 0:  # asked for nothing: keep no weights
            n_species = 0
        n_channels = PSEUDO_SPECIES * n_radial
        self.alchemy = nn.Parameter(torch.randn((0, 0) if apart else (n_species, PSEUDO_SPECIES)))
        self.encoding = nn.Parameter(torch.randn((0, 0) if apart else (n_species, n_channels)))
        self.linear = LinearBySpecies(
            n_species if apart or n_out == 0 else 1,
            max(n_species * n_radial, 1) if apart else n_channels,
            n_out,
        )

    def forward(self, density: Tensor, species: Tensor, layout: BySpecies) -> Tensor:
        """``density [n_atoms, m, n_species * n]``, atoms laid out by ``layout``."""
        x = density
        if not self.apart:
            x = mixed(x, self.alchemy) * self.encoding.index_select(0, species).unsqueeze(1)
        m, q = x.shape[1], x.shape[2]
        rows = x.index_select(0, layout.rows).reshape(layout.n_species, layout.width * m, q)
        y = self.linear(rows)
        return y.reshape(layout.n_species * layout.width, m, y.shape[2]).index_select(
            0, layout.places
        )


def mixed(density: Tensor, alchemy: Tensor) -> Tensor:
    """Density of elements -> density of pseudo-elements, ``[n_atoms, m, n_pseudo * n]``."""
    n_atoms, m = density.shape[0], density.shape[1]
    by_element = density.reshape(n_atoms, m, alchemy.shape[0], -1)
    return torch.matmul(alchemy.t(), by_element).reshape(n_atoms, m, -1)


class Coupling(nn.Module):
    """Clebsch-Gordan product of two spherical tensors, ``[n, 2 l1 + 1], [n, 2 l2 + 1] -> [n, 2 l + 1]``."""

    def __init__(self, l1: int, l2: int, degree: int) -> None:
        super().__init__()
        self.table: Tensor
        table = clebsch_gordan(l1, l2, degree).reshape(-1, 2 * degree + 1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1) @ self.table


class SolidHarmonics(nn.Module):
    """Racah-normalised solid harmonics of vectors: ``R_0 = 1, R_1(v) = v``, ``|R_l(v)| = |v|^l``."""

    def __init__(self, max_degree: int) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(k - 1, 1, k) for k in range(2, max_degree + 1))
        # along z all but m = 0 vanish, and R_l(z) = R_(l-1)(z) = 1 there
        self.factors: List[float] = [
            1.0 / float(clebsch_gordan(k - 1, 1, k)[k - 1, 1, k]) for k in range(2, max_degree + 1)
        ]

    def forward(self, v: Tensor) -> List[Tensor]:
        """Degrees 0 to ``max_degree`` of ``v [n, 3]`` (ordered y, z, x as degree 1 is)."""
        result = [torch.ones_like(v[:, :1]), v]
        for k, coupling in enumerate(self.couplings):
            result.append(coupling(result[-1], v) * self.factors[k])
        return result


class EquivariantBasis(nn.Module):
    """Basis tensors of one degree and parity, ``[n_atoms, 2 l + 1, size]``.

    ``n_per_l`` are the radial functions of each degree of the density, ``apart`` is that of
    :class:`DensityContraction`; ``with_density`` adds
    ``2 l + 1`` contractions of the density of the same degree (for degrees above 1).
    """

    def __init__(
        self,
        degree: int,
        sigma: int,
        n_species: int,
        n_per_l: List[int],
        apart: bool,
        with_density: bool,
    ) -> None:
        super().__init__()
        self.degree = degree
        self.pseudo = sigma == -1
        self.with_density = with_density and degree > 1
        self.size = (2 * degree + 1) * (2 if self.with_density else 1)
        # parts that are not needed are left minimal: TorchScript compiles all branches
        n_vectors = n_per_l[1] if degree > 0 or self.pseudo else 1
        self.vectors = DensityContraction(n_species, n_vectors, 3 if degree > 0 else 0, apart)
        self.pseudo_vectors = DensityContraction(
            n_species, n_vectors, 3 if self.pseudo else 0, apart
        )
        self.own = DensityContraction(
            n_species,
            n_per_l[degree],
            2 * degree + 1 if self.with_density else 0,
            apart,
        )
        self.solids = SolidHarmonics(degree)
        stretched = degree if degree > 1 else -1
        self.pairs = nn.ModuleList(Coupling(a, degree - a, degree) for a in range(stretched + 1))
        self.lower = nn.ModuleList(
            Coupling(a, degree - 1 - a, degree - 1) for a in range(max(stretched, 0))
        )
        self.raised = Coupling(max(degree - 1, 0), 1, max(degree, 1))

    def forward(self, densities: List[Tensor], species: Tensor, layout: BySpecies) -> Tensor:
        """``densities``: one block a degree, ``[n_atoms, 2 l + 1, n_species * n]``."""
        if self.degree == 0:
            basis = torch.ones_like(densities[0][:, :, :1])
        else:
            basis = self.vectors(densities[1], species, layout)
        if self.degree > 1:
            v1, v2, v3 = basis.unbind(2)
            r1, r2 = self.solids(v1), self.solids(v2)
            parts: List[Tensor] = []
            for a, pair in enumerate(self.pairs):
                parts.append(pair(r1[a], r2[self.degree - a]))
            for a, lower in enumerate(self.lower):
                parts.append(self.raised(lower(r1[a], r2[self.degree - 1 - a]), v3))
            basis = torch.stack(parts, dim=2)
        if self.with_density:
            basis = torch.cat([basis, self.own(densities[self.degree], species, layout)], dim=2)
        if self.pseudo:
            a, b, c = self.pseudo_vectors(densities[1], species, layout).unbind(2)
            triple = (torch.linalg.cross(a, b) * c).sum(1)  # y, z, x is an even permutation
            basis = basis * triple.reshape(-1, 1, 1)
        return basis


def clebsch_gordan(l1: int, l2: int, degree: int) -> Tensor:
    """Clebsch-Gordan coefficients for real harmonics, ``[2 l1 + 1, 2 l2 + 1, 2 degree + 1]`` float64.

    Those of the complex harmonics, transformed; where ``l1 + l2 + degree`` is odd the result is
    imaginary, and its imaginary part couples just as well. Orthonormal like the complex ones.
    """
    table = np.asarray(wigners.clebsch_gordan_array(l1, l2, degree), dtype=np.complex128)
    first, second, last = _to_complex(l1), _to_complex(l2), _to_complex(degree).conj()
    table = np.einsum("abc,ai,bj,ck->ijk", table, first, second, last)
    real = table.real if (l1 + l2 + degree) % 2 == 0 else table.imag
    return torch.from_numpy(np.where(np.abs(real) > 1e-14, real, 0.0).copy())


def _to_complex(degree: int) -> np.ndarray:
    """Unitary ``U`` with ``Y_complex[m] = sum U[m, m'] Y_real[m']`` (Condon-Shortley phase)."""
    u = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)
    u[degree, degree] = 1.0
    for m in range(1, degree + 1):
        sign = (-1) ** m
        u[degree + m, degree + m] = sign / math.sqrt(2)
        u[degree + m, degree - m] = 1j * sign / math.sqrt(2)
        u[degree - m, degree + m] = 1 / math.sqrt(2)
        u[degree - m, degree - m] = -1j / math.sqrt(2)
    return u
