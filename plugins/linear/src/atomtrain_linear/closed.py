"""Energies and their first derivatives, coefficients contracted: what predicts, in training and exported.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor, nn

from atomtrain.graph import AtomGraph
from atomtrain_density.closed import ClosedDensity
from atomtrain_density.density import by_atom, by_element
from atomtrain_density.elements import by_species
from atomtrain_density.pairs import group_of
from atomtrain_density.products import Products, crosswise


class Readout(NamedTuple):
    """An energy ``D0 . linear + D quadratic D + B . (D third) + B . (square B)``, by element and degree."""

    linear: Tensor
    """[S, Q]"""
    quadratic: Tensor
    """[L + 1, S, Q, Q], symmetric: all products of two in one"""
    third: Tensor
    """[L + 1, S, Q, C], with the coefficients of ``B . A3``"""
    square: Tensor
    """[L + 1, S, 1, C]"""


@torch.jit.interface
class EnergiesAndGradients(nn.Module):
    """What TorchScript compiles apart: with what needs gradients it would record derivatives of it."""

    def forward(  # type: ignore[empty-body]
        self, graph: AtomGraph, species: Tensor, factors: Tensor, readout: Readout, wanted: bool
    ) -> Tuple[Tensor, Tensor]:
        pass


class ClosedForm(nn.Module):
    """Energies ``[n_atoms, 1]`` and, if ``wanted``, the derivative of their sum ``[n_pairs, 3]``."""

    def __init__(self, density: ClosedDensity, products: Products) -> None:
        super().__init__()
        self.density = density
        self.products = products

    def forward(
        self, graph: AtomGraph, species: Tensor, factors: Tensor, readout: Readout, wanted: bool
    ) -> Tuple[Tensor, Tensor]:
        """``species [n_atoms]`` counts from 0."""
        with torch.no_grad():
            t = self.products
            n_species = self.density.blocks.n_species
            group = group_of(graph.centers, graph.neighbors, species, n_species)
            kept = self.density.neighborhoods(graph.vectors, group, species.shape[0])
            layout = by_species(species, n_species)
            counts = layout.counts
            nothing = torch.zeros_like(readout.linear)
            density = by_element(kept.density, layout, t.n_harmonics, nothing)
            channels = t.channels_of(density, factors, readout.third, counts)
            turned = t.mix(density, readout.quadratic)
            squares = self._scaled(channels.product, readout.square, counts)
            with_product = channels.third + squares
            by_row = (channels.product * with_product).sum(1)
            by_row += (torch.cat(density) * turned).sum(1)
            energies: List[Tensor] = []
            for s, part in enumerate(by_row.split_with_sizes([t.n_harmonics * n for n in counts])):
                n = counts[s]
                linear = torch.mv(density[s][:n], readout.linear[s])
                energies.append(part.view(t.n_harmonics, n).sum(0) + linear)
            y = torch.cat(energies).unsqueeze(1).index_select(0, layout.ranks)
            if not wanted:
                return y, graph.vectors
            on_points = t.transform(t.from_points.t(), with_product + squares, counts)
            both = crosswise(on_points, channels.points)
            on_factors = t.unmix(t.transform(t.to_points.t(), both, counts), factors, counts)
            on_third = t.unmix(channels.product, readout.third, counts)
            found: List[Tensor] = []
            for s, part in enumerate(turned.split_with_sizes([t.n_harmonics * n for n in counts])):
                by_density = torch.add(on_factors[s] + on_third[s], part, alpha=2.0)
                by_density[: counts[s]] += readout.linear[s]
                found.append(by_density)
            return y, self.density.adjoint(kept, by_atom(found, layout, t.n_harmonics))

    def _scaled(self, product: Tensor, square: Tensor, counts: List[int]) -> Tensor:
        """Each row of ``[n_rows, C]`` times what belongs to its element and degree."""
        scaled = torch.empty_like(product)
        first = 0
        for s, n in enumerate(counts):
            for k in range(self.products.degree + 1):
                rows = slice(first + k * k * n, first + (k + 1) * (k + 1) * n)
                torch.mul(product[rows], square[k, s], out=scaled[rows])
            first += self.products.n_harmonics * n
        return scaled
