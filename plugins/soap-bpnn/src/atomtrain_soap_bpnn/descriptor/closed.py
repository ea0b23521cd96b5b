"""Features and their first derivatives without autograd, as TorchScript.

What :mod:`fast` is for training this is for exported models, which know nothing but plain operations.
Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Tuple

import torch
from torch import Tensor, nn

from atomtrain_density.closed import ClosedDensity
from atomtrain_density.density import DensityBlocks
from atomtrain_density.elements import by_species
from atomtrain_density.harmonics import SphericalHarmonics
from atomtrain_density.pairs import group_of
from atomtrain_density.radial import RadialTable
from atomtrain_soap_bpnn.descriptor.spectrum import SymmetricSpectrum
from atomtrain_soap_bpnn.scalars import Inputs, Network, forward_pass, scalars_of_few, slopes


@torch.jit.interface
class ScalarsAndGradients(nn.Module):
    """What TorchScript compiles apart: with what needs gradients it would record derivatives of it."""

    def forward(  # type: ignore[empty-body]
        self,
        vectors: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        species: Tensor,
        network: Network,
        wanted: bool,
        last: bool,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        pass


class ClosedForm(nn.Module):
    """Scalars of atoms from the features of their neighbourhoods, and their derivatives in the pair vectors."""

    def __init__(
        self,
        harmonics: SphericalHarmonics,
        radial: RadialTable,
        blocks: DensityBlocks,
        spectrum: SymmetricSpectrum,
    ) -> None:
        super().__init__()
        self.density = ClosedDensity(harmonics, radial, blocks)
        self.blocks = blocks
        self.spectrum = spectrum
        self.few = 64  # rows of atoms times elements up to which pairs are gone through one by one
        self._pad_degrees()
        self.one_hot: Tensor
        one_hot = torch.eye(blocks.n_species, dtype=torch.float64)
        self.register_buffer("one_hot", one_hot, persistent=False)

    @torch.jit.ignore
    def _pad_degrees(self) -> None:
        """Where what belongs to a degree lies where all are as large as the largest."""
        n_degrees = self.spectrum.n_degrees
        if n_degrees < len(self.blocks.rows):
            self.few = 0  # features do not have all degrees of the density
        rows, columns = self.blocks.rows[:n_degrees], self.blocks.columns[:n_degrees]
        self.n_rows, self.n_columns = max(rows), max(columns)
        shape = (n_degrees, self.n_rows, self.n_columns)
        inside = torch.zeros(shape, dtype=torch.bool)
        products = torch.zeros(n_degrees, self.n_columns, self.n_columns, dtype=torch.bool)
        for k in range(n_degrees):
            inside[k, : rows[k], : columns[k]] = True
            products[k, : columns[k], : columns[k]] = True
        (places,) = torch.where(inside.flatten())  # of the blocks' elements, in their order
        pad = torch.zeros(inside.numel(), dtype=torch.int64)
        pad[places] = self.blocks.order[: len(places)]
        unpad = torch.zeros_like(self.blocks.order)
        unpad[self.blocks.order[: len(places)]] = places
        (unpad_products,) = torch.where(products.flatten())
        pad_products = torch.zeros(products.numel(), dtype=torch.int64)
        pad_products[unpad_products] = self.spectrum.back
        self.pad: Tensor
        self.unpad: Tensor
        self.not_empty: Tensor
        self.pad_products: Tensor
        self.unpad_products: Tensor
        self.register_buffer("pad", pad, persistent=False)
        self.register_buffer("unpad", unpad, persistent=False)
        self.register_buffer("not_empty", inside.flatten().to(torch.float64), persistent=False)
        self.register_buffer("pad_products", pad_products, persistent=False)
        self.register_buffer("unpad_products", unpad_products, persistent=False)

    def forward(
        self,
        vectors: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        species: Tensor,
        network: Network,
        wanted: bool,
        last: bool,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Scalars ``[n_atoms, 1]`` and, if ``wanted``, the derivative of their sum ``[n_pairs, 3]``.

        Beside them, if asked for, what the ``last`` layer takes, ``[n_atoms, n_neurons]``.
        ``centers`` and ``neighbors [n_pairs]`` are atoms, ``species [n_atoms]`` counts from 0.
        """
        with torch.no_grad():
            n_atoms, n_species = species.shape[0], self.blocks.n_species
            group = group_of(centers, neighbors, species, n_species)
            if n_atoms * n_species <= self.few and group.shape[0] <= 8 * self.few:
                y, g, x = self._pair_by_pair(vectors, group, species, network, wanted)
            else:
                y, g, x = self._grouped(vectors, group, species, network, wanted, last)
        return y, g, x

    def _grouped(
        self,
        vectors: Tensor,
        group: Tensor,
        species: Tensor,
        network: Network,
        wanted: bool,
        last: bool,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Pairs laid out by group, atoms by element."""
        kept = self.density.neighborhoods(vectors, group, species.shape[0])
        densities = self.blocks.split(kept.density)[: self.spectrum.n_degrees]
        x, inverse = self.spectrum(densities)
        inputs = Inputs(x, inverse, self.spectrum.n_normalised)
        layout = by_species(species, self.blocks.n_species)
        done = forward_pass(inputs, layout, network)
        neurons = vectors
        if last:
            neurons = done.after[-1].flatten(0, 1).index_select(0, layout.places)
        if not wanted:
            return done.scalars, vectors, neurons
        g = self.spectrum.adjoint(slopes(done, layout, network).products, densities)
        return done.scalars, self.density.adjoint(kept, g), neurons

    def _pair_by_pair(
        self, vectors: Tensor, group: Tensor, species: Tensor, network: Network, wanted: bool
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """The same where time goes by operations: no pair and no atom is laid out anywhere."""
        n_atoms = species.shape[0]
        kept = self.density.pair_by_pair(vectors, group, n_atoms)
        c = kept.density.reshape(n_atoms, self.unpad.shape[0])
        c = c.index_select(1, self.pad) * self.not_empty
        c = c.reshape(-1, self.n_rows, self.n_columns)
        p = torch.bmm(c.transpose(1, 2), c).reshape(n_atoms, self.pad_products.shape[0])
        x, inverse = self.spectrum.normalised(p.index_select(1, self.unpad_products))
        inputs = Inputs(x, inverse, self.spectrum.n_normalised)
        own = self.one_hot.index_select(0, species)
        scalars, g, neurons = scalars_of_few(inputs, species, own, network)
        if not wanted:
            return scalars, vectors, neurons
        g = g * self.spectrum.sharing
        g = g.index_select(1, self.pad_products).reshape(-1, self.n_columns, self.n_columns)
        g = torch.bmm(c, g).reshape(n_atoms, self.pad.shape[0]).index_select(1, self.unpad)
        return scalars, self.density.pairs_adjoint(kept, g.reshape(kept.density.shape)), neurons
