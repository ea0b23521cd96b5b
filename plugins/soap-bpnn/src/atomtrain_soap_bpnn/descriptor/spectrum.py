"""The power spectrum: products of the density with itself, and their normalisation.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from collections.abc import Sequence
from typing import Any, List, Tuple

import torch
from torch import Tensor, nn


def power_spectrum(densities: List[Tensor]) -> Tensor:
    """``[n_atoms, n_features]``: products of the density with itself, summed over m, per degree."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        p = _products(densities)
    else:
        p = _Products.apply(*densities)
    return p


def _products(densities: List[Tensor]) -> Tensor:
    spectra: List[Tensor] = []
    for c in densities:
        spectra.append(torch.bmm(c.transpose(1, 2), c).flatten(1))
    return torch.cat(spectra, dim=1)


class _Products(torch.autograd.Function):
    """Autograd would take the derivative of a sum over degrees apart into one as large as the sum each."""

    @staticmethod
    def forward(ctx: Any, *densities: Tensor) -> Tensor:
        ctx.save_for_backward(*densities)
        return _products(list(densities))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        return _ProductsGradient.apply(g, *ctx.saved_tensors)


class _ProductsGradient(torch.autograd.Function):
    """``c (g + g^T)`` for each degree. Its backward is plain, so it has all further derivatives."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, *densities: Tensor) -> Any:
        ctx.save_for_backward(g, *densities)
        squares = _symmetric(g, densities)
        return tuple(torch.bmm(c, square) for c, square in zip(densities, squares, strict=True))

    @staticmethod
    def backward(ctx: Any, *vectors: Tensor) -> Any:
        g, *densities = ctx.saved_tensors
        halves = [torch.bmm(c.transpose(1, 2), v) for c, v in zip(densities, vectors, strict=True)]
        by_g = torch.cat([(h + h.transpose(1, 2)).flatten(1) for h in halves], dim=1)
        squares = _symmetric(g, densities)
        return by_g, *(torch.bmm(v, square) for v, square in zip(vectors, squares, strict=True))


def _symmetric(g: Tensor, densities: Sequence[Tensor]) -> List[Tensor]:
    columns = [c.shape[2] for c in densities]
    blocks = g.split([q * q for q in columns], dim=1)
    squares = [block.reshape(-1, q, q) for block, q in zip(blocks, columns, strict=True)]
    return [square + square.transpose(1, 2) for square in squares]


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
        self.n_normalised = self.n_all if normalise else 0
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
        self.averaging: Tensor  # to compute a mean, and to share the derivative out between two
        self.sharing: Tensor
        self.register_buffer("averaging", root / self.n_all, persistent=False)
        self.register_buffer("sharing", 2.0 / root, persistent=False)

    def forward(self, densities: List[Tensor]) -> Tuple[Tensor, Tensor]:
        """Features ``[n_atoms, n_features]``, and what products were multiplied by to be normalised.

        The latter is ``[n_atoms, 1]``; 1 where they are not.
        """
        return self.normalised(power_spectrum(densities))

    def normalised(self, p: Tensor) -> Tuple[Tensor, Tensor]:
        """The same from all products, ``[n_atoms, n_all]``."""
        if self.normalise:
            p, _, inverse = torch.native_layer_norm(p, [self.n_all], None, None, self.eps)
        else:
            inverse = torch.ones_like(p[:, :1])
        return p.index_select(1, self.upper) * self.root, inverse

    def centred(self, x: Tensor) -> Tensor:
        """``x [n, n_features]`` less its mean, which is that of all ``n_all`` products."""
        return torch.addr(x, torch.mv(x, self.averaging), self.root, alpha=-1.0)

    def through_norm(self, g: Tensor, features: Tensor, inverse_deviation: Tensor) -> Tensor:
        """The derivative of the normalisation, which is symmetric: adjoint and tangent alike."""
        if not self.normalise:
            return g
        projection = torch.linalg.vecdot(g, features).unsqueeze(1)
        g = torch.addcmul(self.centred(g), features, projection, value=-1.0 / self.n_all)
        return g.mul_(inverse_deviation)

    def adjoint(self, g: Tensor, densities: List[Tensor]) -> Tensor:
        """Derivative in the density, ``[n_atoms, sum of block sizes]``, given that in the products."""
        everywhere = (g * self.sharing).index_select(1, self.back)
        columns = [c.shape[2] for c in densities]
        parts: List[Tensor] = []
        for k, block in enumerate(everywhere.split_with_sizes([q * q for q in columns], dim=1)):
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


def places_of_products(
    n_per_l: List[int], elements: Tensor, n_elements: int, symmetric: bool
) -> Tensor:
    """Where the products of a density of few elements are among those of one of more, ``[n_products]``.

    ``elements`` are the places of the few among all ``n_elements``, in ascending order; a density has ``n_per_l``
    channels of each element. ``symmetric`` spectra have one of two equal products.
    """
    found: List[Tensor] = []
    start = 0
    for n in n_per_l:
        channels = (elements.unsqueeze(1) * n + torch.arange(n)).flatten()
        q = n_elements * n
        if symmetric:
            places = torch.full((q, q), -1)
            upper = torch.triu_indices(q, q)
            places[upper[0], upper[1]] = torch.arange(upper.shape[1])
        else:
            places = torch.arange(q * q).reshape(q, q)
        square = places[channels][:, channels].flatten()
        found.append(start + square[square >= 0])
        start += int(places.max()) + 1
    return torch.cat(found)


def _pairs(q: int) -> List[Tuple[int, int]]:
    return [(a, b) for a in range(q) for b in range(a, q)]
