"""A second layer: atoms tell their neighbours what they see, and the products are made once more.

An atom j sends a few numbers ``h_j``, made of its features, and as many tensors ``t_j`` of each degree, mixtures of its
products, which turn with the structure. The density of the second layer is that of the first with what neighbours
send in the place of their element, in two parts::

    D_i[l m, n c] = sum_j R_n(r_ij) Y_lm(direction) h_j[c]    and    sum_j R_n(r_ij) t_j[l m, c]

Channels of the first layer stand beside them, and products of it all are made as in the first layer. No coupling
coefficients are needed: distances alone weigh the tensors that neighbours send.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from atomtrain_ace.around import around, arriving, places_around, seen, weighed
from atomtrain_ace.scalars import Norm
from atomtrain_density.elements import BySpecies, activation
from atomtrain_density.pairs import PairFunctions
from atomtrain_density.products import Plain, Products


class Sending(NamedTuple):
    """The weights of what atoms send, and of the products of what arrives; Q columns of the second density."""

    send: Tensor
    """[F, n_sent]"""
    offset: Tensor
    """[S, n_sent]"""
    turn: Tensor
    """[L + 1, S, C, n_sent]"""
    pair: Tensor
    """[L + 1, S, Q, 2 C]"""
    third: Tensor
    """[L + 1, S, Q, C]; no columns for correlation 2"""


class SecondLayer(nn.Module):
    """What neighbours send, and the products of it.

    Columns of its density: ``n_radial n_sent`` of numbers, ``n_sent n_radial`` of tensors, and as many of the first
    layer's paired channels, or all where there are fewer.
    """

    def __init__(self, first: Products, n_radial: int, n_species: int, n_sent: int) -> None:
        super().__init__()
        self.products = Products(first.degree, first.channels, first.correlation)
        self.n_radial = n_radial
        self.n_sent = n_sent
        self.n_own = min(first.channels, n_radial * n_sent)
        self.n_columns = 2 * n_sent * n_radial + self.n_own
        n_degrees, m, n_in = first.degree + 1, first.channels, first.n_features
        self.send = nn.Parameter(torch.randn(n_in, n_sent) / math.sqrt(n_in))
        self.offset = nn.Parameter(0.5 * torch.randn(n_species, 1, n_sent))
        self.turn = nn.Parameter(torch.randn(n_degrees, n_species, m, n_sent) / math.sqrt(m))
        shape = (n_degrees, n_species, self.n_columns)
        size = 1.0 / math.sqrt(self.n_columns)
        self.pair = nn.Parameter(size * torch.randn(*shape, 2 * m))
        self.third = nn.Parameter(size * torch.randn(*shape, first.n_third))
        # of the training set (see calibration)
        self.mean: Tensor
        self.whitening: Tensor
        self.scale: Tensor
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        white = torch.eye(n_radial).repeat(n_degrees, n_species * 2 * n_sent, 1, 1)
        self.register_buffer("mean", torch.zeros(n_species, self.n_columns))
        self.register_buffer("whitening", white)
        self.register_buffer("scale", torch.ones(n_degrees, n_species, self.n_own))
        self.register_buffer("feature_mean", torch.zeros(n_species, self.products.n_features))
        self.register_buffer("feature_scale", torch.ones(n_species, self.products.n_features))
        self.is_white = False

    def density(
        self, x: Tensor, first: Plain, species: Tensor, layout: BySpecies, pairs: PairFunctions
    ) -> Tensor:
        """``[n_atoms, K, n_columns]`` of normalised features ``x [n_atoms, F]`` and what the first layer has."""
        n_atoms = x.shape[0]
        offset = self.offset.squeeze(1).index_select(0, species)
        sent = activation(torch.addmm(offset, x, self.send))
        turned = self.products.plain_mix(first.product.transpose(0, 1), layout, self.turn)
        turned = turned.transpose(0, 1).flatten(1)
        places, width = places_around(pairs.centers, n_atoms)
        near = around(places, width, n_atoms, pairs.neighbors, pairs.harmonics, pairs.radial)
        arrived = arriving(weighed(near.radial, seen(sent, near)), seen(turned, near), near)
        own = first.channels[:, :, : self.n_own].transpose(0, 1)
        return torch.cat([arrived, own], 2)

    def raw_features(self, density: Tensor, layout: BySpecies, species: Tensor) -> Tensor:
        """Products of the density, equalised, ``[n_atoms, F]``."""
        density = density - of_degree_0(self.mean, species, density.shape[1])
        pair, third = self.whitened(self.pair), self.whitened(self.third)
        return self.products.plain(density, layout, pair, third).features

    def whitened(self, weight: Tensor) -> Tensor:
        """Weights for the density as it is, of weights ``[L + 1, S, Q, m]`` for the whitened one."""
        if self.is_white:
            return weight
        n_degrees, n_species, _, m = weight.shape
        half = self.n_radial * self.n_sent
        one, two, own = weight.split_with_sizes([half, half, self.n_own], 2)
        shape = [n_degrees, n_species, self.n_sent, self.n_radial, m]
        one = one.reshape(n_degrees, n_species, self.n_radial, self.n_sent, m).transpose(2, 3)
        blocks = torch.cat([one, two.reshape(shape)], 2).flatten(1, 2)
        blocks = torch.matmul(self.whitening, blocks)
        one, two = blocks.reshape(n_degrees, n_species, 2, half, m).unbind(2)
        one = one.reshape(shape).transpose(2, 3).reshape(n_degrees, n_species, half, m)
        return torch.cat([one, two, own * self.scale.unsqueeze(3)], 2)

    def sending(self) -> Sending:
        """The weights, for the density as it is."""
        pair, third = self.whitened(self.pair), self.whitened(self.third)
        return Sending(self.send, self.offset.squeeze(1), self.turn, pair, third)

    def norm(self) -> Norm:
        """The statistics that features are normalised with."""
        return Norm(self.mean, self.feature_mean, self.feature_scale)

    @torch.jit.ignore
    def whiten(self) -> None:
        """Keep the weights as :meth:`whitened` gives them; they cannot be trained any more."""
        with torch.no_grad():
            pair, third = self.whitened(self.pair), self.whitened(self.third)
        self.pair = nn.Parameter(pair, requires_grad=False)
        self.third = nn.Parameter(third, requires_grad=False)
        self.is_white = True

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
