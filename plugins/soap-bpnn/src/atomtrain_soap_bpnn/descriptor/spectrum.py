"""The power spectrum: products of the density with itself, and their normalisation.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import List, Tuple

import torch
from torch import Tensor, nn


def power_spectrum(densities: List[Tensor]) -> Tensor:
    """``[n_atoms, n_features]``: products of the density with itself, summed over m, per degree."""
    spectra: List[Tensor] = []
    for c in densities:
        spectra.append(torch.bmm(c.transpose(1, 2), c).flatten(1))
    return torch.cat(spectra, dim=1)


class SymmetricSpectrum(nn.Module):
    """The power spectrum without its repetitions, normalised as the whole one would be.

    Of two products ``p_ab = p_ba`` one is kept, times the root of 2: scalar products of features,
    and so mean and variance, are those of all ``n_all`` products, at half the work.
    """

    def __init__(self, columns: List[int], normalise: bool, eps: float) -> None:
        """``columns``: channels of each degree's density."""
        super().__init__()
        upper: List[int] = []
        lower: List[int] = []
        back: List[int] = []
        for q in columns:
            start = len(back)
            kept = len(upper)
            position = {pair: k for k, pair in enumerate(_pairs(q))}
            upper.extend(start + a * q + b for a, b in position)
            lower.extend(start + b * q + a for a, b in position)
            back.extend(kept + position[min(a, b), max(a, b)] for a in range(q) for b in range(q))
        self.n_degrees = len(columns)
        self.n_all = len(back)
        self.n_features = len(upper)
        self.normalise = normalise
        self.eps = eps
        self.upper: Tensor
        self.lower: Tensor
        self.back: Tensor
        self.root: Tensor
        self.register_buffer("upper", torch.tensor(upper), persistent=False)  # p_ab, a <= b
        self.register_buffer("lower", torch.tensor(lower), persistent=False)  # p_ba
        self.register_buffer("back", torch.tensor(back), persistent=False)  # of all, which is kept
        root = (1.0 + (self.upper != self.lower).to(torch.float64)).sqrt()
        self.register_buffer("root", root, persistent=False)

    def forward(self, densities: List[Tensor]) -> Tensor:
        """``[n_atoms, n_features]``, in plain operations."""
        p = self.products(densities)
        if not self.normalise:
            return p
        p = self.centred(p)
        return p * self.inverse_deviation(p)

    def products(self, densities: List[Tensor]) -> Tensor:
        """What is kept of the power spectrum, ``[n_atoms, n_features]``, not normalised."""
        return power_spectrum(densities).index_select(1, self.upper) * self.root

    def centred(self, x: Tensor) -> Tensor:
        """``x [n, n_features]`` less its mean, which is that of all ``n_all`` products."""
        mean = torch.mv(x, self.root) / self.n_all
        return torch.addr(x, mean, self.root, alpha=-1.0)

    def inverse_deviation(self, x: Tensor) -> Tensor:
        """``[n, 1]`` for centred ``x``."""
        return torch.rsqrt(x.square().sum(1, keepdim=True) / self.n_all + self.eps)

    def through_norm(self, g: Tensor, features: Tensor, inverse_deviation: Tensor) -> Tensor:
        """The derivative of the normalisation, which is symmetric: adjoint and tangent alike."""
        if not self.normalise:
            return g
        projection = (g * features).sum(1, keepdim=True) / self.n_all
        return (self.centred(g) - features * projection) * inverse_deviation

    def adjoint(self, g: Tensor, densities: List[Tensor]) -> Tensor:
        """Derivative in the density, ``[n_atoms, sum of block sizes]``, given that in the products."""
        everywhere = (g * (2.0 / self.root)).index_select(1, self.back)
        columns = [c.shape[2] for c in densities]
        parts: List[Tensor] = []
        for k, block in enumerate(everywhere.split([q * q for q in columns], dim=1)):
            square = block.reshape(block.shape[0], columns[k], columns[k])
            parts.append(torch.bmm(densities[k], square).flatten(1))
        return torch.cat(parts, dim=1)

    @torch.jit.ignore
    def tangent(self, densities: List[Tensor], changes: List[Tensor]) -> Tensor:
        """Change of the products when the density blocks change."""
        halves = [
            torch.bmm(c.transpose(1, 2), dc).flatten(1)
            for c, dc in zip(densities, changes)  # noqa: B905 (of higher degrees no features)
        ]
        half = torch.cat(halves, dim=1)
        both = half.index_select(1, self.upper).add_(half.index_select(1, self.lower))
        return both.mul_(self.root)


def _pairs(q: int) -> List[Tuple[int, int]]:
    return [(a, b) for a in range(q) for b in range(a, q)]
