"""The fast path: the density's derivative is known in closed form and is linear.

Nothing before the network has a trainable parameter (with elements kept apart), so the features x
of a batch and their derivative J with respect to the pair vectors are constants. With an energy
E(x), training on forces needs

* J^T g with g = dE/dx, for the forces, which are linear in g;
* J v with v = dL/d(forces), the derivative of the former with respect to g.

Both are explicit products with arrays that do not depend on weights; two autograd functions wrap
them, so autograd sees only the small network and the engine needs to know nothing. The second
derivative of the descriptor is never formed: training does not need it. Derivatives of forces with
respect to positions (Hessians) do: for those set ``SoapBpnn.plain``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atomtrain_soap_bpnn.descriptor.density import (
    DensityBlocks,
    Groups,
    by_bin,
    dots,
    padded,
)
from atomtrain_soap_bpnn.descriptor.spectrum import SymmetricSpectrum


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


@dataclass
class Spectrum:
    """Features of a batch."""

    features: Tensor
    """[n_atoms, n_features]"""
    inverse_deviation: Tensor
    """[n_atoms, 1]; 1 where nothing is normalised"""
    densities: list[Tensor]
    rule: SymmetricSpectrum

    @classmethod
    def of(cls, densities: list[Tensor], rule: SymmetricSpectrum) -> Spectrum:
        """The spectrum of these density blocks."""
        features, inverse = rule(densities)
        return cls(features, inverse, densities, rule)

    def through_norm(self, x: Tensor) -> Tensor:
        """Change of the features when the products change by ``x``, or the adjoint of that: the same."""
        return self.rule.through_norm(x, self.features, self.inverse_deviation)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Derivative in the density ``[n_atoms, sum of block sizes]``, given that in the products."""
        return self.rule.adjoint(gradient, self.densities)

    def tangent(self, changes: list[Tensor]) -> Tensor:
        """Change of the products when the density blocks change."""
        return self.rule.tangent(self.densities, changes)


class _Features(torch.autograd.Function):
    """x(vectors), already computed; its backward is J^T g."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, spectrum: Spectrum, basis: PairBasis) -> Tensor:
        ctx.constants = (spectrum, basis)
        return spectrum.features.view_as(spectrum.features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        if not ctx.needs_input_grad[0]:
            return None, None, None
        spectrum, basis = ctx.constants
        return _ProductsAdjoint.apply(_Norm.apply(gradient, spectrum), spectrum, basis), None, None


class _Norm(torch.autograd.Function):
    """The derivative of the normalisation, which is linear and symmetric."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, spectrum: Spectrum) -> Tensor:
        ctx.spectrum = spectrum
        return spectrum.through_norm(gradient)

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> Any:  # type: ignore[override]
        return ctx.spectrum.through_norm(change), None


class _ProductsAdjoint(torch.autograd.Function):
    """J^T g of the products that features are made of, linear in g; its backward is J v."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, spectrum: Spectrum, basis: PairBasis) -> Tensor:
        ctx.constants = (spectrum, basis)
        return basis.adjoint(spectrum.adjoint(gradient))

    @staticmethod
    def backward(ctx: Any, vectors: Tensor) -> Any:  # type: ignore[override]
        spectrum, basis = ctx.constants
        return spectrum.tangent(basis.tangent(vectors)), None, None


class _Slopes(torch.autograd.Function):
    """Zero for each atom, whose derivative along its pair vectors is J^T g (of the products).

    g is no input: autograd would go through here for the derivatives in the weights, too.
    """

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, centers: Tensor, g: list[Tensor], spectrum: Spectrum, basis: PairBasis
    ) -> Tensor:  # fmt: skip
        ctx.constants = (centers, g, spectrum, basis)
        return vectors.new_zeros(len(spectrum.features), 1)

    @staticmethod
    def backward(ctx: Any, by_scalar: Tensor) -> Any:  # type: ignore[override]
        centers, (g,), spectrum, basis = ctx.constants
        by_vectors = _ProductsAdjoint.apply(g, spectrum, basis)
        return by_vectors * by_scalar.index_select(0, centers), None, None, None, None


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


def features(vectors: Tensor, spectrum: Spectrum, basis: PairBasis) -> Tensor:
    """The features as a function of the pair vectors (see the module's text)."""
    result = _Features.apply(vectors, spectrum, basis)
    assert isinstance(result, Tensor)
    return result


def slopes(
    vectors: Tensor, centers: Tensor, g: Tensor, spectrum: Spectrum, basis: PairBasis
) -> Tensor:
    """``[n_atoms, 1]`` zeros to add to scalars, which thereby depend on the pair vectors.

    ``g [n_atoms, n_features]`` is the derivative of each scalar in the products of its atom's density.
    """
    result = _Slopes.apply(vectors, centers, [g], spectrum, basis)
    assert isinstance(result, Tensor)
    return result


def densities(vectors: Tensor, blocks: list[Tensor], basis: PairBasis) -> list[Tensor]:
    """The density blocks as functions of the pair vectors, for models that train what follows."""
    return list(_Density.apply(vectors, basis, *blocks))
