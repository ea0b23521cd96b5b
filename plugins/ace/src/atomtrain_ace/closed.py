"""Scalars and their first derivatives without autograd, as TorchScript: what an exported model runs.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Tuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from atomtrain_ace.scalars import Network, Norm, Weights
from atomtrain_density.closed import ClosedDensity
from atomtrain_density.density import by_atom, by_element
from atomtrain_density.elements import by_species
from atomtrain_density.pairs import group_of


@torch.jit.interface
class ScalarsAndGradients(nn.Module):
    """What TorchScript compiles apart: with what needs gradients it would record derivatives of it."""

    def forward(  # type: ignore[empty-body]
        self,
        vectors: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        species: Tensor,
        weights: Weights,
        norm: Norm,
        wanted: bool,
        last: bool,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        pass


class ClosedForm(nn.Module):
    """Scalars ``[n_atoms, 1]`` and, if ``wanted``, the derivative of their sum ``[n_pairs, 3]``.

    Beside them, if asked for, what the ``last`` layer takes but for its size: features, then neurons.
    """

    def __init__(self, density: ClosedDensity, products: Network) -> None:
        super().__init__()
        self.density = density
        self.products = products

    def forward(
        self,
        vectors: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        species: Tensor,
        weights: Weights,
        norm: Norm,
        wanted: bool,
        last: bool,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """``centers`` and ``neighbors [n_pairs]`` are atoms, ``species [n_atoms]`` counts from 0."""
        with torch.no_grad():
            n_species = self.density.blocks.n_species
            group = group_of(centers, neighbors, species, n_species)
            kept = self.density.neighborhoods(vectors, group, species.shape[0])
            layout = by_species(species, n_species)
            density = by_element(kept.density, layout, self.products.n_harmonics, norm.density)
            done = self.products.forward_pass(density, layout, weights, norm)
            y = done.scalars.index_select(0, layout.ranks)
            g, x = vectors, vectors
            if last:
                x = torch.cat([done.x, silu(done.z)], 1).index_select(0, layout.ranks)
            if wanted:
                found = self.products.slopes(done, layout, weights, norm)
                by_density = by_atom(found.density, layout, self.products.n_harmonics)
                g = self.density.adjoint(kept, by_density)
        return y, g, x
