"""A second layer: atoms tell their neighbours what they see, and the products are made once more.

An atom i sends ``h_i``, numbers made of its features, and ``B_i``, its products, which turn with the structure. What
arrives at an atom is, by degree l and channel, with learnt radial functions f and g::

    M_i[l m] = sum_j f_l(r_ij) Y_lm(direction) h_j + g_l(r_ij) B_j[l m]

Beside the channels of the first layer this is the density of the second, for products of the same kind. The second
part of the sum needs no coupling coefficients: distances alone weigh what neighbours send.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import List

import torch
from torch import Tensor, nn

from atomtrain_density.elements import BySpecies, activation
from atomtrain_density.pairs import PairFunctions
from atomtrain_density.products import Plain, Products


class SecondLayer(nn.Module):
    """What neighbours send, and the products of it."""

    def __init__(self, first: Products, n_radial: int, n_species: int) -> None:
        super().__init__()
        self.products = Products(first.degree, first.channels, first.correlation)
        self.n_columns = 3 * first.channels + first.n_third
        n_degrees, m, n_in = first.degree + 1, first.channels, first.n_features
        self.send = nn.Parameter(torch.randn(n_in, m) / math.sqrt(n_in))
        self.offset = nn.Parameter(0.5 * torch.randn(n_species, 1, m))
        self.radial = nn.Parameter(torch.randn(n_radial, n_degrees * 2 * m) / math.sqrt(n_radial))
        shape = (n_degrees, n_species, self.n_columns)
        size = 1.0 / math.sqrt(self.n_columns)
        self.pair = nn.Parameter(size * torch.randn(*shape, 2 * m))
        self.third = nn.Parameter(size * torch.randn(*shape, first.n_third))
        self.mean: Tensor
        self.scale: Tensor
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        self.register_buffer("mean", torch.zeros(n_species, self.n_columns))
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("feature_mean", torch.zeros(n_species, self.products.n_features))
        self.register_buffer("feature_scale", torch.ones(n_species, self.products.n_features))

    def density(
        self, x: Tensor, first: Plain, species: Tensor, layout: BySpecies, pairs: PairFunctions
    ) -> Tensor:
        """``[n_atoms, K, n_columns]`` of normalised features ``x [n_atoms, F]`` and what the first layer has."""
        m, n_degrees = self.products.channels, self.products.degree + 1
        offset = self.offset.squeeze(1).index_select(0, species)
        sent = activation(torch.addmm(offset, x, self.send)).index_select(0, pairs.neighbors)
        b = first.product.index_select(1, pairs.neighbors).split_with_sizes(self.products.rows, 0)
        radial = torch.mm(pairs.radial, self.radial).reshape(-1, n_degrees, 2 * m).unbind(1)
        parts: List[Tensor] = []
        for k, y in enumerate(pairs.harmonics.t().split_with_sizes(self.products.rows, 0)):
            f, g = radial[k].chunk(2, 1)
            parts.append(y.unsqueeze(2) * (f * sent) + g * b[k])
        arriving = torch.cat(parts, 0)
        shape = [arriving.shape[0], x.shape[0], m]
        messages = torch.zeros(shape, dtype=x.dtype, device=x.device)
        messages = messages.index_add(1, pairs.centers, arriving)
        return torch.cat([messages, first.channels], 2).transpose(0, 1)

    def raw_features(self, density: Tensor, layout: BySpecies, species: Tensor) -> Tensor:
        """Products of the density, equalised, ``[n_atoms, F]``."""
        density = density - of_degree_0(self.mean, species, density.shape[1])
        pair = self.pair * self.scale.unsqueeze(3)
        third = self.third * self.scale.unsqueeze(3)
        return self.products.plain(density, layout, pair, third).features

    def forward(
        self, x: Tensor, first: Plain, species: Tensor, layout: BySpecies, pairs: PairFunctions
    ) -> Tensor:
        """Normalised features ``[n_atoms, F]`` of the second layer."""
        density = self.density(x, first, species, layout, pairs)
        features = self.raw_features(density, layout, species)
        return normalised(features, species, self.feature_mean, self.feature_scale)


def of_degree_0(mean: Tensor, species: Tensor, n_harmonics: int) -> Tensor:
    """``mean [S, Q]`` as a density ``[n_atoms, K, Q]`` to subtract."""
    rows = mean.index_select(0, species).unsqueeze(1)
    return torch.nn.functional.pad(rows, [0, 0, 0, n_harmonics - 1])


def normalised(x: Tensor, species: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """``(x - mean) scale`` with the ``[S, F]`` of the atoms' elements."""
    return (x - mean.index_select(0, species)) * scale.index_select(0, species)
