"""The networks behind the features: one per element of the center, or one for all.

One network per element (Behler-Parrinello, doi 10.1103/PhysRevLett.98.146401) is a stack of weights
``[n_species, ...]``; the atoms are laid out by element (:mod:`atomtrain_density.elements`).
"""

from itertools import pairwise
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import layer_norm

from atomtrain_density.elements import (
    BySpecies,
    LinearBySpecies,
    activation,
    by_atom,
    first_layer,
    normalised,
)
from atomtrain_soap_bpnn.descriptor.spectrum import SymmetricSpectrum


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

    def forward(
        self, features: Tensor, layout: BySpecies, shift: Optional[Tensor] = None
    ) -> Tensor:
        """``[n_atoms, n_features] -> [n_species, width, n_out]``; all products if no layers follow.

        ``shift [n_atoms, n_out]`` is added in the first layer.
        """
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
        x = x + by_atom(offset, layout)
        if shift is not None:
            x = x + shift.index_select(0, layout.order)
        x = activation(x)
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

    def forward(self, x: Tensor, species: Tensor, shift: Optional[Tensor] = None) -> Tensor:
        """``[n_atoms, n_features] -> [n_atoms, n_out]``; ``shift [n_atoms, n_out]`` is added in the first layer."""
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
                x = x + weight @ self.norm_bias
            else:
                x = torch.mm(x, weight.t())
            if k == 0 and shift is not None:
                x = x + shift
            x = activation(x)
        return x
