"""The fast path: the density's derivative is known in closed form and is linear.

The density depends on no weights, so its derivative J with respect to the pair vectors is a constant of
the data. With an energy E, training on forces needs

* J^T g with g = dE/d(density), for the forces, which are linear in g;
* J v with v = dL/d(forces), the derivative of the former with respect to g.

Both are explicit products with arrays that do not depend on weights (:class:`PairBasis`); two autograd
functions wrap them (:func:`densities`), so autograd sees only what follows the density and the engine needs
to know nothing. The second derivative of the density is never formed: training does not need it. Derivatives
of forces with respect to positions (Hessians) do: those need plain operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atomtrain.graph import AtomGraph
from atomtrain_density.density import DensityBlocks
from atomtrain_density.harmonics import HarmonicsAndGradients
from atomtrain_density.pairs import (
    Groups,
    PairFunctions,
    by_bin,
    dots,
    groups_of,
    padded,
)
from atomtrain_density.radial import RadialTable


@dataclass
class PairBasis:
    """The basis at every place of the padded layout: values, and derivatives in the pair vectors."""

    harmonics: Tensor
    """[n_places, (L + 1)^2]"""
    harmonics_gradient: Tensor
    """[n_places, 3, (L + 1)^2]"""
    radial: Tensor
    """[n_places, 2, n_radial], values and d/dr"""
    directions: Tensor
    """[n_places, 3] unit vectors"""
    groups: Groups
    blocks: DensityBlocks

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        graph: AtomGraph,
        species: Tensor,
        harmonics: HarmonicsAndGradients,
        radial: RadialTable,
        blocks: DensityBlocks,
        places: Tensor | None = None,
    ) -> PairBasis:
        """The basis at the pairs of a graph, for ``species [n_atoms]`` counted from 0.

        ``places [n_pairs, 9]`` are those in the radial table, where they are known (they depend on no
        weights: :meth:`RadialTable.places`).
        """
        groups = groups_of(graph, species, blocks.n_species)
        vectors = padded(graph.vectors.detach(), groups, radial.cutoff)
        r = torch.linalg.vector_norm(vectors, dim=1)
        values, gradients = harmonics.compute(vectors)
        if places is None:
            radials = radial.values_and_derivatives(r)
        else:
            radials = radial.combined(padded(places, groups, 0.0))
        return cls(values, gradients, radials, vectors / r.unsqueeze(1), groups, blocks)

    def _two_rows(self) -> Tensor:
        """Room for ``[n_places, 2, (L + 1)^2]``: what belongs to harmonics, and to their place along r."""
        n_places, n_harmonics = self.harmonics.shape
        return self.harmonics.new_empty(n_places, 2, n_harmonics)

    def density(self) -> list[Tensor]:
        """Density of each degree, ``[n_atoms, 2 l + 1, n_species * n_per_l[l]]``."""
        return self.blocks.split(self.blocks(self.harmonics, self.radial[:, 0], self.groups))

    def adjoint(self, gradient: Tensor) -> Tensor:
        """``[n_pairs, 3]``: derivative of a scalar, given its derivative in the density.

        ``gradient [n_atoms, sum of block sizes]``; the blocks of the highest degrees may be missing:
        the scalar does not depend on them.
        """
        by_group = self.blocks.by_group(gradient, self.groups).split_with_sizes(self.groups.sizes)
        both = self._two_rows()
        bins = by_bin(self.radial, self.groups), by_group, by_bin(both, self.groups)
        for radial, g, out in zip(*bins, strict=True):
            torch.bmm(radial, g.transpose(1, 2), out=out)
        on_y, on_r = both.unbind(1)
        along = dots(self.harmonics, on_r)
        turning = torch.bmm(self.harmonics_gradient, on_y.unsqueeze(2)).squeeze(2)
        return torch.addcmul(turning, along, self.directions).index_select(0, self.groups.slots)

    def tangent(self, vectors: Tensor) -> list[Tensor]:
        """Change of the density blocks when the pair vectors change by ``vectors [n_pairs, 3]``."""
        v = padded(vectors, self.groups, 0.0)
        x, y, z = v.split(1, dim=1)
        by_x, by_y, by_z = self.harmonics_gradient.unbind(1)
        along = dots(v, self.directions)
        changes = self._two_rows()
        on_y, on_r = changes.unbind(1)
        torch.addcmul(torch.addcmul(by_x * x, by_y, y), by_z, z, out=on_y)
        torch.mul(self.harmonics, along, out=on_r)
        parts = [
            self.blocks.used_of(torch.bmm(dy.transpose(1, 2), r))
            for dy, r in zip(
                by_bin(changes, self.groups), by_bin(self.radial, self.groups), strict=True
            )
        ]
        return self.blocks.split(self.blocks.by_atom(parts, self.groups))


class Jacobian:
    """The density ``[n_atoms, K, Q]``, radial functions shared by all degrees, and its derivatives pair by pair."""

    def __init__(
        self,
        graph: AtomGraph,
        species: Tensor,
        n_species: int,
        harmonics: HarmonicsAndGradients,
        radial: RadialTable,
    ) -> None:
        self.graph = graph
        n = len(species)
        r = torch.linalg.vector_norm(graph.vectors, dim=1)
        self.directions = graph.vectors / r.unsqueeze(1)
        self.y, self.dy = harmonics.compute(graph.vectors)
        self.radial = radial.values_and_derivatives(r)
        group = graph.centers * n_species + species[graph.neighbors]
        each = (self.y.unsqueeze(2) * self.radial[:, :1]).flatten(1)
        density = each.new_zeros(n * n_species, each.shape[1]).index_add_(0, group, each)
        density = density.view(n, n_species, self.y.shape[1], -1).transpose(1, 2)
        self.density = density.flatten(2)
        self.order = torch.argsort(group, stable=True)
        self.counts = torch.bincount(group, minlength=n * n_species)
        self.starts = self.counts.cumsum(0) - self.counts
        self.n_species = n_species

    def of_element(self, atoms: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Pairs ``[n, width]`` from atoms to neighbours of one element, and which of the places have one."""
        group = atoms * self.n_species + t
        counts = self.counts[group].unsqueeze(1)
        step = torch.arange(int(counts.max()), device=atoms.device)
        places = self.starts[group].unsqueeze(1) + step
        return self.order[places.clamp(max=max(len(self.order) - 1, 0))], step < counts

    def at(self, pairs: Tensor, there: Tensor) -> Tensor:
        """Of the density in the vectors, ``[n, width, 3, K, n_radial]``; zero at places without a pair."""
        value, slope = (self.radial[pairs] * there[:, :, None, None]).unbind(2)
        turning = self.dy[pairs].unsqueeze(4) * value[:, :, None, None]
        along = self.y[pairs].unsqueeze(3) * slope.unsqueeze(2)
        return turning.addcmul_(self.directions[pairs][:, :, :, None, None], along.unsqueeze(2))


class _Density(torch.autograd.Function):
    """The density blocks as functions of the vectors, already computed."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, basis: PairBasis, *blocks: Tensor) -> Any:
        ctx.basis = basis
        return tuple(block.view_as(block) for block in blocks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        none = (None,) * (1 + len(gradients))
        if not ctx.needs_input_grad[0]:
            return (None, *none)
        return (_DensityAdjoint.apply(ctx.basis, *gradients), *none)


class _DensityAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, basis: PairBasis, *gradients: Tensor) -> Tensor:
        ctx.basis = basis
        return basis.adjoint(torch.cat([g.flatten(1) for g in gradients], dim=1))

    @staticmethod
    def backward(ctx: Any, vectors: Tensor) -> Any:  # type: ignore[override]
        return (None, *ctx.basis.tangent(vectors))


def densities(vectors: Tensor, blocks: list[Tensor], basis: PairBasis) -> list[Tensor]:
    """The density blocks as functions of the pair vectors, for models that train what follows."""
    return list(_Density.apply(vectors, basis, *blocks))


def adjoint(gradient: Tensor, basis: PairBasis) -> Tensor:
    """:meth:`PairBasis.adjoint` of ``gradient [n_atoms, sum of block sizes]``, linear in it for autograd."""
    result = _DensityAdjoint.apply(basis, *basis.blocks.split(gradient))
    assert isinstance(result, Tensor)
    return result


def along_pairs(
    vectors: Tensor,
    centers: Tensor,
    n_atoms: int,
    slopes: Callable[[], Tensor],
    weighted: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``[n_atoms, 1]`` zeros to add to scalars, which thereby depend on the pair vectors.

    ``slopes()`` is the derivative ``[n_pairs, 3]`` of the scalars' sum. It is asked for in the backward
    pass and is no input: autograd would go through here for the derivatives in the weights, too.
    Where an atom's scalar depends on other vectors than those that start from it, ``slopes`` says nothing of sums that
    are no plain ones: ``weighted(weights [n_atoms, 1])`` is their derivative.
    """
    result = _AlongPairs.apply(vectors, centers, n_atoms, slopes, weighted)
    assert isinstance(result, Tensor)
    return result


class _AlongPairs(torch.autograd.Function):
    """An atom's scalar is a function of the vectors that start from it, or of more."""

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, centers: Tensor, n_atoms: int, slopes: Callable[[], Tensor],
        weighted: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:  # fmt: skip
        ctx.known = (centers, slopes, weighted)
        return vectors.new_zeros(n_atoms, 1)

    @staticmethod
    def backward(ctx: Any, by_scalar: Tensor) -> Any:  # type: ignore[override]
        centers, slopes, weighted = ctx.known
        if weighted is not None and not torch.equal(by_scalar, by_scalar[:1].expand_as(by_scalar)):
            return weighted(by_scalar), None, None, None, None
        return slopes() * by_scalar.index_select(0, centers), None, None, None, None


def pair_functions(
    vectors: Tensor, centers: Tensor, neighbors: Tensor, basis: PairBasis, n_harmonics: int
) -> PairFunctions:
    """The pairs of a basis as functions of the vectors, whose first derivatives are known."""
    slots = basis.groups.slots
    y = basis.harmonics.index_select(0, slots)[:, :n_harmonics]
    dy, radial, directions = _of_pairs(basis, n_harmonics)
    if not vectors.requires_grad:
        return PairFunctions(centers, neighbors, y, radial[:, 0])
    harmonics, radial = _Moving.apply(vectors, y, dy, radial, directions)
    return PairFunctions(centers, neighbors, harmonics, radial)


def pair_adjoint(by_y: Tensor, by_radial: Tensor, basis: PairBasis) -> Tensor:
    """``[n_pairs, 3]`` of derivatives in the :func:`pair_functions`; linear in them for autograd."""
    dy, radial, directions = _of_pairs(basis, by_y.shape[1])
    result = _MovingAdjoint.apply(by_y, by_radial, dy, radial[:, 1], directions)
    assert isinstance(result, Tensor)
    return result


def _of_pairs(basis: PairBasis, n_harmonics: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the pairs: gradients of harmonics, radial functions with derivatives, directions."""
    slots = basis.groups.slots
    gradients = basis.harmonics_gradient.index_select(0, slots)[:, :, :n_harmonics]
    return gradients, basis.radial.index_select(0, slots), basis.directions.index_select(0, slots)


class _Moving(torch.autograd.Function):
    """Harmonics and radial functions, already computed, as functions of the vectors."""

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, y: Tensor, dy: Tensor, radial: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.known = (dy, radial[:, 1], directions)
        return y.view_as(y), radial[:, 0].clone()

    @staticmethod
    def backward(ctx: Any, by_y: Tensor, by_radial: Tensor) -> Any:  # type: ignore[override]
        by_vectors = _MovingAdjoint.apply(by_y, by_radial, *ctx.known)
        return by_vectors, None, None, None, None


class _MovingAdjoint(torch.autograd.Function):
    """The adjoint of the derivative, linear in what it is given; its backward is the derivative."""

    @staticmethod
    def forward(
        ctx: Any, by_y: Tensor, by_radial: Tensor, dy: Tensor, slope: Tensor, directions: Tensor
    ) -> Tensor:
        ctx.known = (dy, slope, directions)
        turning = torch.bmm(dy, by_y.unsqueeze(2)).squeeze(2)
        along = torch.linalg.vecdot(by_radial, slope).unsqueeze(1)
        return torch.addcmul(turning, along, directions)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:  # type: ignore[override]
        dy, slope, directions = ctx.known
        by_y = torch.bmm(v.unsqueeze(1), dy).squeeze(1)
        by_radial = slope * torch.linalg.vecdot(v, directions).unsqueeze(1)
        return by_y, by_radial, None, None, None
