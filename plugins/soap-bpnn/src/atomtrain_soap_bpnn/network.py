"""The networks behind the features: one per element of the center, or one for all.

One network per element (Behler-Parrinello, doi 10.1103/PhysRevLett.98.146401) is a stack of weights
``[n_species, ...]``; the atoms are laid out by element, padded to the most frequent one, so that
every layer is one batched product.
"""

import math
from itertools import pairwise
from typing import Any, List, NamedTuple, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import layer_norm, silu

from atomtrain_soap_bpnn.descriptor.spectrum import SymmetricSpectrum


class BySpecies(NamedTuple):
    """Atoms laid out by element."""

    order: Tensor
    """[n_atoms] atoms sorted by element"""
    kinds: Tensor
    """[n_atoms] element of each atom of ``order``"""
    counts: List[int]
    """how many atoms of each element"""
    rows: Tensor
    """[n_species * width] atom at each place (the first of all where there is none)"""
    sorted_rows: Tensor
    """[n_species * width] the same, as positions in ``order``"""
    sorted_places: Tensor
    """[n_atoms] place of each atom of ``order``"""
    ranks: Tensor
    """[n_atoms] where in ``order`` each atom is"""
    places: Tensor
    """[n_atoms] place of each atom"""
    n_species: int
    width: int


def by_species(species: Tensor, n_species: int) -> BySpecies:
    """The layout for atoms of ``species [n_atoms]``, counted from 0."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        layout = _by_species(species, n_species)
    elif species.device.type == "cpu":
        layout = _by_species_numpy(species, n_species)
    else:
        layout = _by_species(species, n_species)
    return layout


def _by_species(species: Tensor, n_species: int) -> BySpecies:
    n_atoms = species.shape[0]
    counts = torch.bincount(species, minlength=n_species)
    listed: List[int] = counts.tolist()
    width = max(listed) if n_species > 0 else 0
    kinds, order = torch.sort(species, stable=True)
    every = torch.arange(n_atoms, device=species.device)
    gaps: List[int] = []  # empty places before the atoms of each element
    total = 0
    for k, count in enumerate(listed):
        gaps.append(k * width - total)
        total += count
    gap = torch.tensor(gaps, dtype=torch.int64, device=species.device)
    sorted_places = every + gap.index_select(0, kinds)
    sorted_rows = torch.zeros(n_species * width, dtype=torch.int64, device=species.device)
    sorted_rows = sorted_rows.index_copy(0, sorted_places, every)
    rows = order.index_select(0, sorted_rows) if n_atoms > 0 else sorted_rows
    ranks = torch.empty_like(order).index_copy(0, order, every)
    places = sorted_places.index_select(0, ranks)
    return BySpecies(
        order, kinds, listed, rows, sorted_rows, sorted_places, ranks, places, n_species, width
    )


def _by_species_numpy(species: Tensor, n_species: int) -> BySpecies:
    """The same. With few atoms calls take the time, and numpy's take half that of torch's."""
    counts = np.bincount(species.numpy(), minlength=n_species)
    width = int(counts.max(initial=0))
    order = np.argsort(species.numpy(), kind="stable")
    every = np.arange(len(order))
    gaps = np.arange(n_species) * width - (counts.cumsum() - counts)
    sorted_places = every + np.repeat(gaps, counts)
    sorted_rows = np.zeros(n_species * width, dtype=np.int64)
    sorted_rows[sorted_places] = every
    rows = order[sorted_rows] if len(order) > 0 else sorted_rows
    ranks = np.empty_like(order)
    ranks[order] = every
    return BySpecies(
        torch.from_numpy(order),
        torch.from_numpy(species.numpy()[order]),
        counts.tolist(),
        torch.from_numpy(rows),
        torch.from_numpy(sorted_rows),
        torch.from_numpy(sorted_places),
        torch.from_numpy(ranks),
        torch.from_numpy(sorted_places[ranks]),
        n_species,
        width,
    )


def by_atom(of_species: Tensor, layout: BySpecies) -> Tensor:
    """``[n_species, n] -> [n_atoms, n]`` for atoms sorted by element; of one element as it is."""
    if layout.n_species == 1:
        return of_species
    return of_species.index_select(0, layout.kinds)


def all_together(species: Tensor) -> BySpecies:
    """The layout of a network that all elements share: one group, atoms as they are."""
    every = torch.arange(species.shape[0], device=species.device)
    n = species.shape[0]
    kinds = torch.zeros_like(every)
    return BySpecies(every, kinds, [n], every, every, every, every, every, 1, n)


def _weight(n_species: int, n_out: int, n_in: int) -> nn.Parameter:
    """``[n_species, n_out, n_in]``, initialised as torch initialises its linear layers."""
    bound = 1.0 / math.sqrt(n_in)
    return nn.Parameter(torch.empty(n_species, n_out, n_in).uniform_(-bound, bound))


class LinearBySpecies(nn.Module):
    """A linear layer without bias per element: ``[n_species, width, n_in] -> [..., n_out]``."""

    def __init__(self, n_species: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = _weight(n_species, n_out, n_in)

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight.transpose(1, 2))


def activation(x: Tensor) -> Tensor:
    """SiLU, ``x sigmoid(x)``."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        y = silu(x)
    else:
        y = _Silu.apply(x)
    return y


class _Silu(torch.autograd.Function):
    """torch's SiLU, whose derivatives autograd takes apart into several times as many operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return silu(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        return _SiluGradient.apply(g, *ctx.saved_tensors)


class _SiluGradient(torch.autograd.Function):
    """``g silu'(x)``. Its backward is made of plain operations, so it has all further derivatives."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(g, x)
        return torch.ops.aten.silu_backward(g, x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, by_result: Tensor) -> Any:  # type: ignore[override]
        g, x = ctx.saved_tensors
        s = torch.sigmoid(x)
        rest = 1.0 - s
        slope = s * torch.addcmul(torch.ones_like(x), x, rest)
        second = s * rest * torch.addcmul(torch.full_like(x, 2.0), x, rest - s)
        return by_result * slope, by_result * g * second


def normalised(x: Tensor) -> Tensor:
    """Rows of ``x [n, n_features]`` with mean 0 and variance 1: a layer norm without scale and shift."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        y = layer_norm(x, [x.shape[1]])
    else:
        y = _Normalised.apply(x)
    return y


class _Normalised(torch.autograd.Function):
    """torch's layer norm, whose second derivatives autograd takes apart into dozens of passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x - x.mean(1, keepdim=True)
        inverse = torch.rsqrt(torch.linalg.vecdot(y, y).unsqueeze(1) / x.shape[1] + 1e-5)
        y.mul_(inverse)
        ctx.save_for_backward(x, y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        x, y, inverse = ctx.saved_tensors
        return _NormalisedGradient.apply(g, x, y.detach(), inverse)


class _NormalisedGradient(torch.autograd.Function):
    """``J g`` with ``J = (1 - 1/F - y y^T / F) / deviation``, which is symmetric.

    With a = <g, y> / F, b = <v, y> / F, c = <g, v> / F of centred g and v, the derivative of <v, J g>
    in what was normalised is ``((3 a b - c) y - b g - a v) / variance``.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
        g = g - g.mean(1, keepdim=True)
        a = torch.linalg.vecdot(g, y).unsqueeze(1) / y.shape[1]
        ctx.save_for_backward(g, y, inverse, a)
        return torch.addcmul(g, y, a, value=-1.0).mul_(inverse)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, v: Tensor) -> Any:  # type: ignore[override]
        g, y, inverse, a = ctx.saved_tensors
        v = v - v.mean(1, keepdim=True)
        b = torch.linalg.vecdot(v, y).unsqueeze(1) / y.shape[1]
        c = torch.linalg.vecdot(v, g).unsqueeze(1) / y.shape[1]
        square = inverse.square()
        by_x = y * ((3.0 * a * b - c) * square)
        by_x.addcmul_(g, b * square, value=-1.0).addcmul_(v, a * square, value=-1.0)
        return v.addcmul_(y, b, value=-1.0).mul_(inverse), by_x, None, None


class _Fold(torch.autograd.Function):
    """:func:`_fold`. What autograd makes of it passes over arrays as large as the weights twice as
    often, and for small batches these passes are what a step takes its time for."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, root: Tensor, squares: Tensor
    ) -> Tuple[Tensor, Tensor]:  # fmt: skip
        ctx.save_for_backward(weight, norm_weight, norm_bias, root, squares)
        return _fold(weight, norm_weight, norm_bias, root, squares)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor, by_offset: Tensor) -> Any:  # type: ignore[override]
        weight, norm_weight, norm_bias, root, squares = ctx.saved_tensors
        by_mean = torch.mv(g.flatten(0, 1), root).reshape(by_offset.shape)
        by_both = torch.stack([by_offset, by_mean.neg_()], dim=1)
        both = torch.stack([norm_bias, norm_weight], dim=1).mul_(squares)
        products = torch.bmm(by_both, weight)
        by_bias, by_scale = products[:, 0] * squares[0], products[:, 1] * squares[1]
        by_scale.addcmul_((g * weight).sum(1), root)
        by_weight = g * (norm_weight * root).unsqueeze(1)
        by_weight.baddbmm_(by_both.transpose(1, 2), both)
        return by_weight, by_scale, by_bias, None, None


def _fold(
    weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, root: Tensor, squares: Tensor
) -> Tuple[Tensor, Tensor]:
    """The affine part of a layer norm in the layer behind it, whose weights lose their mean.

    Normalised features have none to multiply it with, and derivatives in them then have none to be
    removed. ``weight [n_species, n_out, n_in]``, ``norm_weight`` and ``norm_bias [n_species, n_in]``;
    each of the ``n_in`` stands for ``root [n_in]`` squared equal inputs. ``squares [2, n_in]`` are
    these numbers, and their parts of the whole. Gives weights like ``weight`` and offsets
    ``[n_species, n_out]``.
    """
    both = torch.stack([norm_bias, norm_weight], dim=1) * squares
    offset, mean = torch.bmm(both, weight.transpose(1, 2)).unbind(1)
    folded = weight * (norm_weight * root).unsqueeze(1)
    row = root.expand(weight.shape[0], 1, root.shape[0])
    return folded.baddbmm_(mean.unsqueeze(2), row, alpha=-1.0), offset


def first_layer(x: Tensor, weight: Tensor, layout: BySpecies) -> Tensor:
    """``[n_atoms, n_in] -> [n_atoms, n_out]`` for atoms sorted by element; one product an element."""
    weights = weight.unbind(0)
    parts: List[Tensor] = []
    for k, part in enumerate(x.split_with_sizes(layout.counts)):
        parts.append(torch.mm(part, weights[k].t()))
    return torch.cat(parts)


class NetworkBySpecies(nn.Module):
    """Layer norm and hidden layers per element, on what ``spectrum`` makes of the density.

    The affine part of the layer norm is folded into the first layer: with it the normalised
    features are constants of the data, which is what makes training fast. The first layer, where
    nearly all the work is, is one product per element that there is; the others are padded.

    One weight serves both of two equal products. It starts as the mean of two and counts twice, so
    that training moves the layer as it would move one on all products.
    """

    def __init__(
        self, n_species: int, spectrum: SymmetricSpectrum, n_hidden: int, n_neurons: int
    ) -> None:
        super().__init__()
        self.has_layers = n_hidden > 0
        n_features = spectrum.n_features if self.has_layers else spectrum.n_all
        self.n_out = n_neurons if self.has_layers else n_features
        self.norm = spectrum.normalise
        shape = (n_species, n_features) if self.norm else (0, 0)
        self.norm_weight = nn.Parameter(torch.ones(shape))
        self.norm_bias = nn.Parameter(torch.zeros(shape))
        self.first = LinearBySpecies(n_species if n_hidden else 0, spectrum.n_all, n_neurons)
        w = self.first.weight.detach()
        mean = 0.5 * (w[..., spectrum.upper] + w[..., spectrum.lower])
        self.first.weight = nn.Parameter(mean)
        self.root: Tensor
        self.register_buffer("root", spectrum.root, persistent=False)
        self.squares: Tensor
        squares = spectrum.root.square()
        squares = torch.stack([squares, squares / spectrum.n_all])
        self.register_buffer("squares", squares, persistent=False)
        self.layers = nn.ModuleList(
            LinearBySpecies(n_species, n_neurons, n_neurons) for _ in range(n_hidden - 1)
        )
        self.is_folded = False
        self.offset: Tensor
        self.register_buffer("offset", torch.zeros(0, 0), persistent=False)

    @torch.jit.ignore
    def fold(self) -> None:
        """Put the affine part of the layer norm into the first layer for good: no more training."""
        if self.has_layers:
            with torch.no_grad():
                weight, self.offset = self.folded()
            self.first.weight = nn.Parameter(weight, requires_grad=False)
            self.is_folded = True

    def forward(self, features: Tensor, layout: BySpecies) -> Tensor:
        """``[n_atoms, n_features] -> [n_species, width, n_out]``; all products if no layers follow."""
        shape = [layout.n_species, layout.width, self.n_out]
        if not self.has_layers:
            x = features.index_select(0, layout.rows).reshape(shape)
            if self.norm:
                x = x * self.norm_weight.unsqueeze(1) + self.norm_bias.unsqueeze(1)
            return x
        if layout.n_species > 1:
            features = features.index_select(0, layout.order)
        weight, offset = self.folded()
        x = first_layer(features, weight, layout)
        x = activation(x + by_atom(offset, layout))
        x = x.index_select(0, layout.sorted_rows).reshape(shape)
        for layer in self.layers:
            x = activation(layer(x))
        return x

    def folded(self) -> Tuple[Tensor, Tensor]:
        """Weights and offsets of the first layer for features that are only normalised."""
        weight: Tensor = self.first.weight
        if self.is_folded:
            return weight, self.offset
        if not self.norm:
            offset = torch.zeros(weight.shape[:2], dtype=weight.dtype, device=weight.device)
            return weight * self.root, offset
        given = (weight, self.norm_weight, self.norm_bias, self.root, self.squares)
        # bare: TorchScript must drop the other branch
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            folded = _fold(*given)
        else:
            folded = _Fold.apply(*given)
        return folded

    def hidden(self) -> List[Tensor]:
        """Weights of the layers after the first."""
        weights: List[Tensor] = []
        for layer in self.layers:
            weights.append(layer.weight)  # type: ignore[arg-type]
        return weights


class SharedNetwork(nn.Module):
    """One network for all elements, on features times a learnt encoding of the center's element."""

    def __init__(
        self, n_species: int, n_features: int, n_hidden: int, n_neurons: int, norm: bool
    ) -> None:
        super().__init__()
        self.encoding = nn.Parameter(torch.randn(n_species, n_features))
        self.norm = norm
        shape = (n_features,) if norm else (0,)
        self.norm_weight = nn.Parameter(torch.ones(shape))
        self.norm_bias = nn.Parameter(torch.zeros(shape))
        sizes = [n_features] + [n_neurons] * n_hidden
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        self.n_features = n_features
        self.n_out = sizes[-1]

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """``[n_atoms, n_features] -> [n_atoms, n_out]``."""
        x = x * self.encoding.index_select(0, species)
        if self.norm and len(self.layers) == 0:
            return layer_norm(x, [self.n_features], self.norm_weight, self.norm_bias, 1e-5)
        weights: List[Tensor] = []
        for layer in self.layers:
            weights.append(layer.weight)  # type: ignore[arg-type]
        for k, weight in enumerate(weights):
            if k == 0 and self.norm:
                # scale and shift act on the layer, which has few rows, not on the features
                x = torch.mm(normalised(x), (weight * self.norm_weight).t())
                x = activation(x + weight @ self.norm_bias)
            else:
                x = activation(torch.mm(x, weight.t()))
        return x
