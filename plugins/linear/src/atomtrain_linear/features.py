"""Invariant features of the density of an atom's neighbours, and their derivatives one by one.

Of the density ``D [K, Q]`` (harmonics by columns: elements of neighbours times radial functions) four kinds, of
two to five bodies: its part of degree 0; and, degree by degree, scalar products of channels, ``A1 . A2``, ``B . A3``
and ``B . B`` with ``B = A1 x A2`` (:mod:`atomtrain_density.products`). Channels ``A = D W`` are random and fixed: as
many as one can afford stand for all products there are (doi 10.1103/PhysRevLett.131.028001).
The smoothness prior is in their sizes: a radial function counts the less the quicker it oscillates, so that a product
of quick ones counts least.

Nothing depends on data: the same hypers and elements give the same features.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import List, Tuple

import torch
from torch import Tensor, nn

from atomtrain_density.elements import BySpecies
from atomtrain_density.products import Products
from atomtrain_linear.hypers import ModelHypers

SEED = 0
"""of the channels"""
LINEAR, PAIRS, FACTORS, THIRD = 8.0, 20.0, 5.3, 18.0
"""what makes features of two bodies, and channels of those of more, as large as each other in molecules and crystals"""


class Features(nn.Module):
    """``n_features`` of an atom; those of different elements have nothing to do with one another."""

    def __init__(self, hypers: ModelHypers, n_species: int) -> None:
        super().__init__()
        self.degree = degree = hypers.max_degree
        self.n_harmonics = (degree + 1) ** 2
        self.n_columns = n_species * hypers.num_radial
        # more than there are different products of two columns would be the same ones again
        n_pairs = min(hypers.num_pairs, self.n_columns * (self.n_columns + 1) // 2)
        n_products = hypers.num_products
        self.two = Products(degree, n_pairs, 2)
        self.many = Products(degree, n_products, 4)
        self.linear = LINEAR
        self.first_many = self.n_columns + (degree + 1) * n_pairs
        self.n_features = self.first_many + 2 * (degree + 1) * n_products
        size = torch.exp(-hypers.smoothness * torch.arange(hypers.num_radial, dtype=torch.float64))
        size = (size / torch.linalg.vector_norm(size)).repeat(n_species) / math.sqrt(n_species)
        generator = torch.Generator().manual_seed(SEED)

        def channels(n: int, scale: float) -> Tensor:
            shape = (degree + 1, n_species, self.n_columns, n)
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            return (scale * size.unsqueeze(1) * drawn).to(torch.get_default_dtype())

        self.pair: Tensor
        self.factors: Tensor
        self.third: Tensor
        self.register_buffer("pair", channels(2 * n_pairs, PAIRS))
        self.register_buffer("factors", channels(2 * n_products, FACTORS))
        self.register_buffer("third", channels(n_products, THIRD))

    def forward(self, density: List[Tensor], counts: List[int]) -> Tensor:
        """``[n_atoms, n_features]``, atoms by element, of ``[K n_s, Q]`` for each element."""
        linear: List[Tensor] = []
        for part, n in zip(density, counts):  # noqa: B905
            linear.append(self.linear * part[:n])
        none = self.pair[:, :, :, :0]
        pairs = self.two.channels_of(density, self.pair, none, counts)
        many = self.many.channels_of(density, self.factors, self.third, counts)
        of_pairs = self.two.features(pairs, counts)[:, 2 * self.two.channels :]
        # behind channels of degree 0 and products of two
        first = (3 + self.degree + 1) * self.many.channels
        of_many = self.many.features(many, counts)[:, first:]
        return torch.cat([torch.cat(linear), of_pairs, of_many], 1)

    def contracted(
        self,
        density: Tensor,
        layout: BySpecies,
        species: Tensor,
        quadratic: Tensor,
        third: Tensor,
        square: Tensor,
    ) -> Tensor:
        """Features of three bodies and more times coefficients (:class:`atomtrain_linear.closed.Readout`), ``[n, 1]``.

        In operations that can be differentiated as often as one likes, of ``density [n_atoms, K, Q]``, atoms in the
        order of the structures.
        """
        t = self.many
        found = t.plain(density, layout, self.factors, third)
        rows = torch.tensor(t.rows, device=species.device)
        by_row = square.squeeze(2).repeat_interleave(rows, 0).index_select(1, species)
        with_product = found.channels[:, :, 2 * t.channels :] + by_row * found.product
        turned = t.plain_mix(density, layout, quadratic)
        y = (density.transpose(0, 1) * turned).sum([0, 2])
        return (y + (found.product * with_product).sum([0, 2])).unsqueeze(1)

    def slopes(self, density: Tensor, s: int) -> List[Tuple[int, slice, Tensor]]:
        """Derivatives of each feature of atoms of element ``s`` in their density ``[n, K, Q]``.

        In parts: the first of the features, the harmonics they depend on, and ``[n, k, Q, features]``. The features
        of degree 0, whose derivative is LINEAR, are left out.
        """
        parts: List[Tuple[int, slice, Tensor]] = []
        m = self.two.channels
        mixed = self._mix(density, self.pair[:, s])
        for k in range(self.degree + 1):
            own = slice(k * k, (k + 1) ** 2)
            w = self.pair[k, s] / math.sqrt(2 * k + 1)
            a = mixed[:, own].unsqueeze(2)
            g = a[..., m:] * w[:, :m]
            parts.append((self.n_columns + k * m, own, g.addcmul_(a[..., :m], w[:, m:])))
        first = self.first_many
        for g in self._slopes_of_many(density, s):
            parts.append((first, slice(0, self.n_harmonics), g))
            first += g.shape[3]
        return parts

    def _slopes_of_many(self, density: Tensor, s: int) -> List[Tensor]:
        """The same of ``B . A3`` and of ``B . B``: ``[n, K, Q, (L + 1) C]``."""
        t, m, n_degrees = self.many, self.many.channels, self.degree + 1
        n = density.shape[0]
        a, third = self._mix(density, self.factors[:, s]), self._mix(density, self.third[:, s])
        points = t.to_points @ a
        product = t.from_points @ (points[..., :m] * points[..., m:])
        rows = torch.tensor(t.rows, device=density.device)
        factors = self.factors[:, s].repeat_interleave(rows, 0).unsqueeze(2)  # [K, Q, 1, 2 C]
        by_degree = t.by_degree.t().unsqueeze(2)  # [K, L + 1, 1]
        found: List[Tensor] = []
        for k, source in enumerate((third, 2.0 * product)):
            on_product = source.unsqueeze(2) * by_degree  # [n, K, L + 1, C]
            on_points = (t.from_points.t() @ on_product.flatten(2)).unflatten(2, (n_degrees, m))
            slopes: List[Tensor] = []
            for other in (points[..., m:], points[..., :m]):
                back = t.to_points.t() @ (on_points * other.unsqueeze(2)).flatten(2)
                slopes.append(back.view(n, self.n_harmonics, 1, n_degrees, m))
            g = slopes[0] * factors[..., :m]
            g.addcmul_(slopes[1], factors[..., m:])
            if k == 0:
                for degree in range(n_degrees):
                    own = slice(degree**2, (degree + 1) ** 2)
                    w = self.third[degree, s] / math.sqrt(2 * degree + 1)
                    g[:, own, :, degree].addcmul_(product[:, own].unsqueeze(2), w)
            found.append(g.flatten(3))
        return found

    def _mix(self, density: Tensor, weight: Tensor) -> Tensor:
        """``[n, K, Q]`` and ``[L + 1, Q, m]`` -> ``[n, K, m]``."""
        parts = [density[:, k * k : (k + 1) ** 2] @ weight[k] for k in range(self.degree + 1)]
        return torch.cat(parts, 1)
