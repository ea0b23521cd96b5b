"""The networks behind the features: one per element of the center, or one for all.

One network per element (Behler-Parrinello, doi 10.1103/PhysRevLett.98.146401) is a stack of weights
``[n_species, ...]``; the atoms are laid out by element, padded to the most frequent one, so that
every layer is one batched product.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu


class BySpecies(NamedTuple):
    """Atoms laid out by element."""

    rows: Tensor
    """[n_species * width] atom at each place (atom 0 where there is none)"""
    places: Tensor
    """[n_atoms] place of each atom"""
    n_species: int
    width: int


def by_species(species: Tensor, n_species: int) -> BySpecies:
    """The layout for atoms of ``species [n_atoms]``, counted from 0."""
    n_atoms = species.shape[0]
    counts = torch.bincount(species, minlength=n_species)
    width = int(counts.max()) if n_atoms > 0 else 0
    order = torch.argsort(species, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    kinds = species.index_select(0, order)
    ranks = torch.arange(n_atoms, device=species.device) - starts.index_select(0, kinds)
    sorted_places = kinds * width + ranks
    rows = torch.zeros(n_species * width, dtype=torch.int64, device=species.device)
    rows = rows.index_copy(0, sorted_places, order)
    places = torch.empty_like(order).index_copy(0, order, sorted_places)
    return BySpecies(rows, places, n_species, width)


def all_together(species: Tensor) -> BySpecies:
    """The layout of a network that all elements share: one group, atoms as they are."""
    every = torch.arange(species.shape[0], device=species.device)
    return BySpecies(every, every, 1, species.shape[0])


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


class NetworkBySpecies(nn.Module):
    """Layer norm and hidden layers per element. Takes features already normalised.

    The affine part of the layer norm is folded into the first layer: with it the normalised
    features are constants of the data, which is what makes training fast.
    """

    def __init__(
        self, n_species: int, n_features: int, n_hidden: int, n_neurons: int, norm: bool
    ) -> None:
        super().__init__()
        self.n_species = n_species
        self.n_out = n_neurons if n_hidden else n_features
        self.norm = norm
        shape = (n_species, n_features) if norm else (0, 0)
        self.norm_weight = nn.Parameter(torch.ones(shape))
        self.norm_bias = nn.Parameter(torch.zeros(shape))
        self.first = LinearBySpecies(n_species if n_hidden else 0, n_features, n_neurons)
        self.layers = nn.ModuleList(
            LinearBySpecies(n_species, n_neurons, n_neurons) for _ in range(n_hidden - 1)
        )
        self.has_layers = n_hidden > 0

    def forward(self, x: Tensor) -> Tensor:
        """``[n_species, width, n_features] -> [n_species, width, n_out]``."""
        if not self.has_layers:
            if self.norm:
                x = x * self.norm_weight.unsqueeze(1) + self.norm_bias.unsqueeze(1)
            return x
        weight = self.first.weight
        if self.norm:
            offset = torch.bmm(weight, self.norm_bias.unsqueeze(2)).transpose(1, 2)
            folded = weight * self.norm_weight.unsqueeze(1)
            x = silu(torch.baddbmm(offset, x, folded.transpose(1, 2)))
        else:
            x = silu(torch.bmm(x, weight.transpose(1, 2)))
        for layer in self.layers:
            x = silu(layer(x))
        return x


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
        if self.norm:
            x = layer_norm(x, [self.n_features], self.norm_weight, self.norm_bias, 1e-5)
        for layer in self.layers:
            x = silu(layer(x))
        return x
