"""The density and its first derivatives without autograd, as TorchScript.

What :mod:`derivatives` is for training this is for exported models, which know nothing but plain operations.
Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from atomtrain_density.density import DensityBlocks
from atomtrain_density.harmonics import SphericalHarmonics, lowering
from atomtrain_density.pairs import Groups, dots, group_pairs, padded
from atomtrain_density.radial import RadialTable


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
    """What :meth:`ClosedDensity.neighborhoods` leaves for :meth:`ClosedDensity.adjoint`."""

    density: Tensor
    """[n_atoms, sum of block sizes]"""
    bins: List[Bin]
    groups: Groups


class Pairs(NamedTuple):
    """What :meth:`ClosedDensity.pair_by_pair` leaves for :meth:`ClosedDensity.pairs_adjoint`."""

    density: Tensor
    """[n_atoms * n_species, n_used], as :meth:`DensityBlocks.separate` has it"""
    group: Tensor
    """[n_pairs]"""
    harmonics: Tensor
    """[n_pairs, (L + 1)^2]"""
    harmonics_used: Tensor
    """[n_pairs, n_used]"""
    radial: Tensor
    """[n_pairs, n_used]"""
    radial_slope: Tensor
    """[n_pairs, n_used]"""
    r: Tensor
    """[n_pairs]"""
    directions: Tensor
    """[n_pairs, 3]"""


class ClosedDensity(nn.Module):
    """The density, and the derivative of any scalar in the pair vectors, given that in the density.

    The gradient of a solid harmonic ``r^l Y_lm`` is a combination of those of degree ``l - 1``; with
    the constant coefficients of these combinations no derivative of a harmonic is ever stored.

    Pairs are grouped (:meth:`neighborhoods`, :meth:`adjoint`), or, where time goes by operations and not by
    arithmetic, gone through one by one (:meth:`pair_by_pair`, :meth:`pairs_adjoint`).
    """

    def __init__(
        self, harmonics: SphericalHarmonics, radial: RadialTable, blocks: DensityBlocks
    ) -> None:
        super().__init__()
        self.harmonics = harmonics
        self.radial = radial
        self.blocks = blocks
        self.n_lower = harmonics.max_angular**2
        self.lowering: Tensor
        self.harmonic_of_used: Tensor
        self.radial_of_used: Tensor
        self.lowering_of_used: Tensor
        table = lowering(harmonics).flatten(1)
        harmonic = blocks.used // blocks.n_radial
        self.register_buffer("lowering", table, persistent=False)
        self.register_buffer("harmonic_of_used", harmonic, persistent=False)
        self.register_buffer("radial_of_used", blocks.used % blocks.n_radial, persistent=False)
        self.register_buffer("lowering_of_used", table[harmonic], persistent=False)

    def forward(self, vectors: Tensor, group: Tensor, n_atoms: int) -> Tensor:
        """The density alone (behind an interface TorchScript wants a forward of every module)."""
        return self.neighborhoods(vectors, group, n_atoms).density

    def neighborhoods(self, vectors: Tensor, group: Tensor, n_atoms: int) -> Neighborhoods:
        """The density for ``vectors [n_pairs, 3]`` of these groups, ``[n_pairs]`` (:func:`group_of`)."""
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
        return Neighborhoods(self.blocks.by_atom(parts, groups), bins, groups)

    def pair_functions(self, kept: Neighborhoods, n_harmonics: int) -> Tuple[Tensor, Tensor]:
        """Harmonics ``[n_pairs, n_harmonics]`` and radial functions ``[n_pairs, n_radial]`` of the pairs."""
        y = torch.cat([one.harmonics[:, :n_harmonics] for one in kept.bins])
        radial = torch.cat([one.radial[:, 0] for one in kept.bins])
        slots = kept.groups.slots
        return y.index_select(0, slots), radial.index_select(0, slots)

    def adjoint(
        self,
        kept: Neighborhoods,
        gradient: Tensor,
        of_pairs: Optional[Tuple[Tensor, Tensor]] = None,
    ) -> Tensor:
        """``[n_pairs, 3]`` from the derivative in the density ``[n_atoms, sum of block sizes]``.

        Blocks of the highest degrees may be missing. ``of_pairs`` are derivatives in the :meth:`pair_functions`, where
        a scalar depends on these, too.
        """
        groups = kept.groups
        by_group = self.blocks.by_group(gradient, groups).split(groups.sizes)
        more: List[Tensor] = []
        if of_pairs is not None:
            more = self._at_places(of_pairs[0], of_pairs[1], groups)
        parts: List[Tensor] = []
        for k, part in enumerate(by_group):
            parts.append(self._of_bin(kept.bins[k], part, more[k] if len(more) > 0 else None))
        return torch.cat(parts).index_select(0, groups.slots)

    def _at_places(self, on_y: Tensor, on_radial: Tensor, groups: Groups) -> List[Tensor]:
        """Derivatives ``[n_pairs, ...]`` side by side at the places of each bin; 0 where there is no pair."""
        pairs = torch.cat([on_y, on_radial], 1)
        shape = [groups.n_places, pairs.shape[1]]
        places = torch.zeros(shape, dtype=pairs.dtype, device=pairs.device)
        places.index_copy_(0, groups.slots, pairs)
        sizes: List[int] = []
        for size, width in zip(groups.sizes, groups.widths):  # noqa: B905
            sizes.append(size * width)
        return list(places.split(sizes))

    def pair_by_pair(self, vectors: Tensor, group: Tensor, n_atoms: int) -> Pairs:
        """What :meth:`neighborhoods` computes, with no pair laid out anywhere."""
        r = torch.linalg.vector_norm(vectors, dim=1)
        directions = vectors / r.unsqueeze(1)
        y = self.harmonics.values(directions)
        radials = self.radial.values_and_derivatives(r).flatten(0, 1)
        radials = radials.index_select(1, self.radial_of_used)  # quicker than of three dimensions
        radial, slope = radials.reshape(r.shape[0], 2, radials.shape[1]).unbind(1)
        y_used = y.index_select(1, self.harmonic_of_used)
        density = torch.zeros(
            [n_atoms * self.blocks.n_species, y_used.shape[1]],
            dtype=vectors.dtype,
            device=vectors.device,
        ).index_add(0, group, y_used * radial)
        return Pairs(density, group, y, y_used, radial, slope, r, directions)

    def pairs_adjoint(self, kept: Pairs, gradient: Tensor) -> Tensor:
        """``[n_pairs, 3]`` from the derivative in ``kept.density``, which has its shape."""
        g = gradient.index_select(0, kept.group)
        on_r = (g * kept.harmonics_used * kept.radial_slope).sum(1, keepdim=True)
        lower = (g * kept.radial) @ self.lowering_of_used
        return self._on_vectors(lower, on_r, kept.harmonics, kept.r, kept.directions)

    def _of_bin(self, one: Bin, g: Tensor, more: Optional[Tensor]) -> Tensor:
        """``[size * width, 3]`` from ``g [size, (L + 1)^2, n_radial]``, and from what pairs ask for alone."""
        y = one.harmonics
        radial = one.radial.reshape(one.size, 2 * one.width, one.radial.shape[2])
        both = torch.bmm(radial, g.transpose(1, 2)).reshape(y.shape[0], 2, y.shape[1])
        on_y, on_r = both.unbind(1)
        along = dots(on_r, y)
        if more is not None:
            n_radial = one.radial.shape[2]
            n_harmonics = more.shape[1] - n_radial
            on_y[:, :n_harmonics] += more[:, :n_harmonics]
            along = along + dots(more[:, n_harmonics:], one.radial[:, 1])
        return self._on_vectors(on_y @ self.lowering, along, y, one.r, one.directions)

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
