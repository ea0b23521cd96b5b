"""Scalars and their first derivatives without autograd, as TorchScript: what an exported model runs.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from atomtrain_ace.around import around, places_around
from atomtrain_ace.messages import Sending
from atomtrain_ace.scalars import Network, Norm, Weights
from atomtrain_ace.two_layers import Known, TwoLayers
from atomtrain_density.closed import ClosedDensity
from atomtrain_density.density import by_atom, by_element
from atomtrain_density.elements import by_species
from atomtrain_density.pairs import group_of


class Structures(NamedTuple):
    """What is asked about."""

    vectors: Tensor
    """[n_pairs, 3]"""
    centers: Tensor
    """[n_pairs] atoms"""
    neighbors: Tensor
    """[n_pairs] atoms"""
    species: Tensor
    """[n_atoms] elements, counted from 0"""
    share: Optional[Tensor]
    """[n_atoms, 1], weights of atoms in the sum that is differentiated; none: 1"""


class SecondWeights(NamedTuple):
    """What a second layer has beside the :class:`Weights`."""

    sending: Sending
    norm: Norm


@torch.jit.interface
class ScalarsAndGradients(nn.Module):
    """What TorchScript compiles apart: with what needs gradients it would record derivatives of it."""

    def forward(  # type: ignore[empty-body]
        self,
        of: Structures,
        weights: Weights,
        norm: Norm,
        second: Optional[SecondWeights],
        wanted: bool,
        last: bool,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        pass


class ClosedForm(nn.Module):
    """Scalars ``[n_atoms, 1]`` and, if ``wanted``, the derivative of their sum ``[n_pairs, 3]``.

    Beside them, if asked for, what the ``last`` layer takes but for its size: features, then neurons. An atom's scalar
    depends on the vectors that start from it alone, so that the derivative serves weighted sums as well.
    """

    def __init__(self, density: ClosedDensity, products: Network) -> None:
        super().__init__()
        self.density = density
        self.products = products

    def forward(
        self,
        of: Structures,
        weights: Weights,
        norm: Norm,
        second: Optional[SecondWeights],
        wanted: bool,
        last: bool,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """See the class; ``second`` is none."""
        with torch.no_grad():
            n_species, n_atoms = self.density.blocks.n_species, of.species.shape[0]
            group = group_of(of.centers, of.neighbors, of.species, n_species)
            kept = self.density.neighborhoods(of.vectors, group, n_atoms)
            layout = by_species(of.species, n_species)
            density = by_element(kept.density, layout, self.products.n_harmonics, norm.density)
            done = self.products.forward_pass(density, layout, weights, norm)
            y = done.scalars.index_select(0, layout.ranks)
            g, x = of.vectors, of.vectors
            if last:
                x = torch.cat([done.x, silu(done.z)], 1).index_select(0, layout.ranks)
            if wanted:
                found = self.products.slopes(done, layout, weights, norm)
                by_density = by_atom(found.density, layout, self.products.n_harmonics)
                g = self.density.adjoint(kept, by_density)
        return y, g, x


class ClosedTwoLayers(nn.Module):
    """The same of two layers.

    An atom's scalar depends on what its neighbours see: the derivative is that of the sum with the ``share`` of each
    atom, and of no other.
    """

    def __init__(self, density: ClosedDensity, layers: TwoLayers) -> None:
        super().__init__()
        self.density = density
        self.layers = layers

    def forward(
        self,
        of: Structures,
        weights: Weights,
        norm: Norm,
        second: Optional[SecondWeights],
        wanted: bool,
        last: bool,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        assert second is not None
        with torch.no_grad():
            n_species, n_atoms = self.density.blocks.n_species, of.species.shape[0]
            group = group_of(of.centers, of.neighbors, of.species, n_species)
            kept = self.density.neighborhoods(of.vectors, group, n_atoms)
            layout = by_species(of.species, n_species)
            n_harmonics = self.layers.first.n_harmonics
            density = by_element(kept.density, layout, n_harmonics, norm.density)
            harmonics, radial = self.density.pair_functions(kept, n_harmonics)
            places, width = places_around(layout.ranks.index_select(0, of.centers), n_atoms)
            ends = layout.ranks.index_select(0, of.neighbors)
            near = around(places, width, n_atoms, ends, harmonics, radial)
            known = Known(layout, near, norm, second.norm)
            done = self.layers.forward_pass(density, known, weights, second.sending)
            y = done.scalars.index_select(0, layout.ranks)
            g, x = of.vectors, of.vectors
            if last:
                x = torch.cat([done.x, silu(done.z)], 1).index_select(0, layout.ranks)
            if wanted:
                share = of.share
                if share is not None:
                    share = share.index_select(0, layout.order)
                _, slopes, on_y, on_r = self.layers.slopes(
                    done, known, weights, second.sending, share
                )
                by_density = by_atom(slopes, layout, n_harmonics)
                g = self.density.adjoint(kept, by_density, (on_y, on_r))
        return y, g, x
