"""Features and their first derivatives without autograd, as TorchScript.

What :mod:`fast` is for training this is for exported models, which know nothing but plain operations.
Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor, nn

from atomtrain_soap_bpnn.descriptor.basis import RadialBasis, SphericalHarmonics
from atomtrain_soap_bpnn.descriptor.density import DensityBlocks, Groups, dots, group_pairs, padded
from atomtrain_soap_bpnn.descriptor.spectrum import SymmetricSpectrum
from atomtrain_soap_bpnn.network import by_species
from atomtrain_soap_bpnn.scalars import Inputs, Network, forward_pass, scalars_of_few, slopes


class Bin(NamedTuple):
    """One bin of the layout."""

    size: int
    width: int
    harmonics: Tensor
    """[size * width, (L + 1)^2]"""
    radial: Tensor
    """[size * width, 2, n_radial], values and d/dr"""
    r: Tensor
    """[size * width]"""
    directions: Tensor
    """[size * width, 3]"""


class Neighborhoods(NamedTuple):
    """What :meth:`ClosedForm.neighborhoods` leaves for :meth:`ClosedForm.adjoint`."""

    inputs: Inputs
    """of the network"""
    density: Tensor
    """[n_atoms, sum of block sizes]"""
    bins: List[Bin]
    groups: Groups


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
    ) -> Tuple[Tensor, Tensor]:
        pass


class ClosedForm(nn.Module):
    """Features of atoms, and the derivative of any scalar in the pair vectors, given that in the features.

    The gradient of a solid harmonic ``r^l Y_lm`` is a combination of those of degree ``l - 1``; with
    the constant coefficients of these combinations no derivative of a harmonic is ever stored.
    """

    def __init__(
        self,
        harmonics: SphericalHarmonics,
        radial: RadialBasis,
        blocks: DensityBlocks,
        spectrum: SymmetricSpectrum,
    ) -> None:
        super().__init__()
        self.harmonics = harmonics
        self.radial = radial
        self.blocks = blocks
        self.spectrum = spectrum
        self.few = 64  # rows of atoms times elements up to which pairs are gone through one by one
        self._pad_degrees()
        self.n_lower = harmonics.max_angular**2
        self.lowering: Tensor
        self.harmonic_of_used: Tensor
        self.radial_of_used: Tensor
        self.lowering_of_used: Tensor
        lowering = _lowering(harmonics)
        harmonic = blocks.used // blocks.n_radial
        self.one_hot: Tensor
        one_hot = torch.eye(blocks.n_species, dtype=torch.float64)
        self.register_buffer("one_hot", one_hot, persistent=False)
        self.register_buffer("lowering", lowering, persistent=False)
        self.register_buffer("harmonic_of_used", harmonic, persistent=False)
        self.register_buffer("radial_of_used", blocks.used % blocks.n_radial, persistent=False)
        self.register_buffer("lowering_of_used", lowering[harmonic], persistent=False)

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
    ) -> Tuple[Tensor, Tensor]:
        """Scalars ``[n_atoms, 1]`` and, if ``wanted``, the derivative of their sum ``[n_pairs, 3]``.

        ``centers`` and ``neighbors [n_pairs]`` are atoms, ``species [n_atoms]`` counts from 0.
        """
        with torch.no_grad():
            n_atoms, n_species = species.shape[0], self.blocks.n_species
            group = centers * n_species + species.index_select(0, neighbors)
            if n_atoms * n_species <= self.few and group.shape[0] <= 8 * self.few:
                y, g = self._pair_by_pair(vectors, group, species, network, wanted)
            else:
                y, g = self._grouped(vectors, group, species, network, wanted)
        return y, g

    def _grouped(
        self, vectors: Tensor, group: Tensor, species: Tensor, network: Network, wanted: bool
    ) -> Tuple[Tensor, Tensor]:
        """Pairs laid out by group, atoms by element."""
        kept = self.neighborhoods(vectors, group, species.shape[0])
        layout = by_species(species, self.blocks.n_species)
        done = forward_pass(kept.inputs, layout, network)
        if not wanted:
            return done.scalars, vectors
        return done.scalars, self.adjoint(kept, slopes(done, layout, network).products)

    def _pair_by_pair(
        self, vectors: Tensor, group: Tensor, species: Tensor, network: Network, wanted: bool
    ) -> Tuple[Tensor, Tensor]:
        """The same where time goes by operations: no pair and no atom is laid out anywhere."""
        n_atoms, n_species = species.shape[0], self.blocks.n_species
        r = torch.linalg.vector_norm(vectors, dim=1)
        directions = vectors / r.unsqueeze(1)
        y = self.harmonics.values(directions)
        radials = self.radial.values_and_derivatives(r).flatten(0, 1)
        radials = radials.index_select(1, self.radial_of_used)  # quicker than of three dimensions
        radial, slope = radials.reshape(r.shape[0], 2, radials.shape[1]).unbind(1)
        y_used = y.index_select(1, self.harmonic_of_used)
        density = torch.zeros(
            [n_atoms * n_species, y_used.shape[1]], dtype=vectors.dtype, device=vectors.device
        ).index_add(0, group, y_used * radial)
        c = density.reshape(n_atoms, self.unpad.shape[0]).index_select(1, self.pad) * self.not_empty
        c = c.reshape(-1, self.n_rows, self.n_columns)
        p = torch.bmm(c.transpose(1, 2), c).reshape(n_atoms, self.pad_products.shape[0])
        x, inverse = self.spectrum.normalised(p.index_select(1, self.unpad_products))
        inputs = Inputs(x, inverse, self.spectrum.n_normalised)
        scalars, g = scalars_of_few(inputs, species, self.one_hot.index_select(0, species), network)
        if not wanted:
            return scalars, vectors
        g = g * self.spectrum.sharing
        g = g.index_select(1, self.pad_products).reshape(-1, self.n_columns, self.n_columns)
        g = torch.bmm(c, g).reshape(n_atoms, self.pad.shape[0]).index_select(1, self.unpad)
        g = g.reshape(density.shape).index_select(0, group)
        on_r = (g * y_used * slope).sum(1, keepdim=True)
        return scalars, self._on_vectors(
            (g * radial) @ self.lowering_of_used, on_r, y, r, directions
        )

    def neighborhoods(self, vectors: Tensor, group: Tensor, n_atoms: int) -> Neighborhoods:
        """For pairs of these groups, ``[n_pairs]`` (``atom * n_species + s``)."""
        groups = group_pairs(group, n_atoms)
        places = padded(vectors, groups, self.radial.cutoff)
        n_places = [size * width for size, width in zip(groups.sizes, groups.widths)]  # noqa: B905
        bins: List[Bin] = []
        parts: List[Tensor] = []
        for k, part in enumerate(places.split(n_places)):
            size, width = groups.sizes[k], groups.widths[k]
            r = torch.linalg.vector_norm(part, dim=1)
            directions = part / r.unsqueeze(1)
            radial = self.radial.values_and_derivatives(r)
            harmonics = self.harmonics.values(directions)
            bins.append(Bin(size, width, harmonics, radial, r, directions))
            parts.append(self.blocks.product(harmonics, radial[:, 0], size, width))
        density = self.blocks.by_atom(parts, groups)
        x, inverse = self.spectrum(self.blocks.split(density)[: self.spectrum.n_degrees])
        inputs = Inputs(x, inverse, self.spectrum.n_normalised)
        return Neighborhoods(inputs, density, bins, groups)

    def adjoint(self, kept: Neighborhoods, gradient: Tensor) -> Tensor:
        """``[n_pairs, 3]`` from the derivative in the products ``[n_atoms, n_features]``."""
        densities = self.blocks.split(kept.density)[: self.spectrum.n_degrees]
        by_group = self.blocks.by_group(self.spectrum.adjoint(gradient, densities), kept.groups)
        parts: List[Tensor] = []
        for k, part in enumerate(by_group.split(kept.groups.sizes)):
            parts.append(self._of_bin(kept.bins[k], part))
        return torch.cat(parts).index_select(0, kept.groups.slots)

    def _of_bin(self, one: Bin, g: Tensor) -> Tensor:
        """``[size * width, 3]`` from ``g [size, (L + 1)^2, n_radial]``."""
        y = one.harmonics
        radial = one.radial.reshape(one.size, 2 * one.width, one.radial.shape[2])
        both = torch.bmm(radial, g.transpose(1, 2)).reshape(y.shape[0], 2, y.shape[1])
        on_y, on_r = both.unbind(1)
        return self._on_vectors(on_y @ self.lowering, dots(on_r, y), y, one.r, one.directions)

    def _on_vectors(
        self, lower: Tensor, on_r: Tensor, y: Tensor, r: Tensor, directions: Tensor
    ) -> Tensor:
        """Derivative ``[n, 3]`` from ``on_r [n, 1]``, that along the vector at fixed harmonics.

        ``lower [n, 3 L^2]``: derivative in harmonics ``y [n, (L + 1)^2]`` times ``self.lowering``.
        """
        lower = lower.reshape(y.shape[0], 3, self.n_lower)
        turning = torch.bmm(lower, y[:, : self.n_lower].unsqueeze(2)).squeeze(2)
        turning = turning / r.unsqueeze(1)
        # the gradient of a harmonic is that of the solid one less its part along the vector
        return torch.addcmul(turning, directions, on_r - dots(turning, directions))


def _lowering(harmonics: SphericalHarmonics) -> Tensor:
    """``[(L + 1)^2, 3 L^2]``: gradients of solid harmonics in terms of those of the degree below.

    Found from values and gradients at random points: the combination is unique.
    """
    n_lower = harmonics.max_angular**2
    size = (harmonics.max_angular + 1) ** 2
    table = torch.zeros(size, 3, n_lower, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4 * size, 3, dtype=torch.float64, generator=generator).requires_grad_(True)
    r = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    values = harmonics.to(torch.float64)(x / r)
    for degree in range(1, harmonics.max_angular + 1):
        below = slice((degree - 1) ** 2, degree**2)
        solid = (values[:, below] * r ** (degree - 1)).detach()
        for k in range(degree**2, (degree + 1) ** 2):
            (gradient,) = torch.autograd.grad(
                (values[:, k] * r[:, 0] ** degree).sum(), x, retain_graph=True
            )
            table[k, :, below] = torch.linalg.lstsq(solid, gradient).solution.T
    table[table.abs() < 1e-10] = 0.0
    return table.reshape(size, 3 * n_lower)
