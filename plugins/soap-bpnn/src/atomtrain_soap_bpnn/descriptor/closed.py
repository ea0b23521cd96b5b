"""Features and their first derivatives without autograd, as TorchScript.

What :mod:`fast` is for training this is for exported models, which know nothing but plain operations.
Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import List, NamedTuple

import torch
from torch import Tensor, nn

from atomtrain_soap_bpnn.descriptor.basis import RadialBasis, SphericalHarmonics
from atomtrain_soap_bpnn.descriptor.density import DensityBlocks, Groups, group_pairs, padded
from atomtrain_soap_bpnn.descriptor.spectrum import SymmetricSpectrum


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
    """What :meth:`ClosedForm.forward` leaves for :meth:`ClosedForm.adjoint`."""

    features: Tensor
    """[n_atoms, n_features]"""
    inverse_deviation: Tensor
    """[n_atoms, 1]; 1 where nothing is normalised"""
    density: Tensor
    """[n_atoms, sum of block sizes]"""
    bins: List[Bin]
    groups: Groups


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
        self.n_lower = harmonics.max_angular**2
        self.lowering: Tensor
        self.register_buffer("lowering", _lowering(harmonics), persistent=False)

    def forward(self, vectors: Tensor, group: Tensor, n_atoms: int) -> Neighborhoods:
        """For pairs whose ``group [n_pairs]`` (``atom * n_species + s``) ascends."""
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
            harmonics = self.harmonics(directions)
            bins.append(Bin(size, width, harmonics, radial, r, directions))
            parts.append(self.blocks.product(harmonics, radial[:, 0], size, width))
        density = self.blocks.by_atom(parts, groups)
        x = self.spectrum.products(self.blocks.split(density)[: self.spectrum.n_degrees])
        inverse = torch.ones_like(x[:, :1])
        if self.spectrum.normalise:
            x = self.spectrum.centred(x)
            inverse = self.spectrum.inverse_deviation(x)
            x = x * inverse
        return Neighborhoods(x, inverse, density, bins, groups)

    def adjoint(self, kept: Neighborhoods, gradient: Tensor) -> Tensor:
        """``[n_pairs, 3]`` from the derivative in the features ``[n_atoms, n_features]``."""
        densities = self.blocks.split(kept.density)[: self.spectrum.n_degrees]
        g = self.spectrum.through_norm(gradient, kept.features, kept.inverse_deviation)
        by_group = self.blocks.by_group(self.spectrum.adjoint(g, densities), kept.groups)
        parts: List[Tensor] = []
        for k, part in enumerate(by_group.split(kept.groups.sizes)):
            parts.append(self._on_vectors(kept.bins[k], part))
        return torch.cat(parts).index_select(0, kept.groups.slots)

    def _on_vectors(self, one: Bin, g: Tensor) -> Tensor:
        """``[size * width, 3]`` from ``g [size, (L + 1)^2, n_radial]``."""
        y = one.harmonics
        radial = one.radial.reshape(one.size, 2 * one.width, one.radial.shape[2])
        both = torch.bmm(radial, g.transpose(1, 2)).reshape(y.shape[0], 2, y.shape[1])
        on_y, on_r = both.unbind(1)
        lower = (on_y @ self.lowering).reshape(y.shape[0], 3, self.n_lower)
        turning = torch.bmm(lower, y[:, : self.n_lower].unsqueeze(2)).squeeze(2)
        turning = turning / one.r.unsqueeze(1)
        # the gradient of a harmonic is that of the solid one less its part along the vector
        along = (on_r * y).sum(1) - (turning * one.directions).sum(1)
        return turning + one.directions * along.unsqueeze(1)


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
