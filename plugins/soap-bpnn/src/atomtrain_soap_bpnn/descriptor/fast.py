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
    grouped,
    padded,
    power_spectrum,
    product_over_pairs,
)


@dataclass
class PairBasis:
    """The basis at every place of the padded layout: values, and derivatives in the pair vectors."""

    harmonics: Tensor
    """[n_places, (L + 1)^2], with n_places = n_groups * width"""
    harmonics_gradient: Tensor
    """[n_places, 3, (L + 1)^2]"""
    radial: Tensor
    """[n_places, n_radial]"""
    radial_gradient: Tensor
    """[n_places, n_radial], d/dr"""
    directions: Tensor
    """[n_places, 3] unit vectors"""
    groups: Groups
    blocks: DensityBlocks

    def density(self) -> list[Tensor]:
        """Density of each degree, ``[n_atoms, 2 l + 1, n_species * n_per_l[l]]``."""
        product = product_over_pairs(self.harmonics, self.radial, self.groups)
        return self.blocks.split(self.blocks(product, self.groups))

    def adjoint(self, gradients: list[Tensor]) -> Tensor:
        """``[n_pairs, 3]``: derivative of a scalar, given its derivative in each density block.

        Of the highest degrees blocks may be left out: the scalar does not depend on them.
        """
        for missing in range(len(gradients), len(self.blocks.sizes)):
            shape = (gradients[0].shape[0], self.blocks.rows[missing], self.blocks.columns[missing])
            gradients = [*gradients, gradients[0].new_zeros(shape)]
        flat = torch.cat([g.flatten(1) for g in gradients], dim=1)
        g = self.blocks.expand(flat, self.groups)  # [n_groups, n_harmonics, n_radial]
        on_r = torch.bmm(grouped(self.harmonics, self.groups), g).flatten(0, 1)
        on_y = torch.bmm(grouped(self.radial, self.groups), g.transpose(1, 2)).flatten(0, 1)
        along = torch.linalg.vecdot(on_r, self.radial_gradient).unsqueeze(1)
        turning = torch.bmm(self.harmonics_gradient, on_y.unsqueeze(2)).squeeze(2)
        return torch.addcmul(turning, along, self.directions).index_select(0, self.groups.slots)

    def tangent(self, vectors: Tensor) -> list[Tensor]:
        """Change of the density blocks when the pair vectors change by ``vectors [n_pairs, 3]``."""
        v = padded(vectors, self.groups, 0.0)
        x, y, z = v.split(1, dim=1)
        by_x, by_y, by_z = self.harmonics_gradient.unbind(1)
        turning = torch.addcmul(torch.addcmul(by_x * x, by_y, y), by_z, z)
        along = torch.linalg.vecdot(v, self.directions).unsqueeze(1) * self.radial_gradient
        product = torch.baddbmm(
            product_over_pairs(turning, self.radial, self.groups),
            grouped(self.harmonics, self.groups).transpose(1, 2),
            grouped(along, self.groups),
        )
        return self.blocks.split(self.blocks(product, self.groups))


@dataclass
class Spectrum:
    """Features of a batch: the power spectrum, normalised if ``inverse_deviation`` is there."""

    features: Tensor
    """[n_atoms, n_features]"""
    inverse_deviation: Tensor | None
    """[n_atoms, 1]"""
    densities: list[Tensor]

    def adjoint(self, gradient: Tensor) -> list[Tensor]:
        """Derivative in the density blocks, given the derivative ``[n_atoms, n_features]``."""
        g = self._through_norm(gradient)
        parts, start = [], 0
        for c in self.densities:
            q = c.shape[2]
            block = g[:, start : start + q * q].reshape(-1, q, q)
            parts.append(torch.bmm(c, block + block.transpose(1, 2)))
            start += q * q
        return parts

    def tangent(self, changes: list[Tensor]) -> Tensor:
        """Change of the features when the density blocks change."""
        parts = []
        for c, dc in zip(self.densities, changes, strict=False):  # of higher degrees no features
            half = torch.bmm(c.transpose(1, 2), dc)
            parts.append((half + half.transpose(1, 2)).flatten(1))
        return self._through_norm(torch.cat(parts, dim=1))

    def _through_norm(self, g: Tensor) -> Tensor:
        """The derivative of the normalisation, which is symmetric: adjoint and tangent alike."""
        if self.inverse_deviation is None:
            return g
        x = self.features
        mean = g.mean(1, keepdim=True)
        projection = torch.linalg.vecdot(g, x).unsqueeze(1) / x.shape[1]
        return torch.addcmul(g - mean, x, projection, value=-1).mul_(self.inverse_deviation)


def spectrum_of(densities: list[Tensor], normalise: bool, eps: float) -> Spectrum:
    """Features from the density, normalised to mean 0 and variance 1 over the features of an atom."""
    p = power_spectrum(densities)
    if not normalise:
        return Spectrum(p, None, densities)
    variance, mean = torch.var_mean(p, dim=1, keepdim=True, correction=0)
    inverse = torch.rsqrt(variance + eps)
    return Spectrum((p - mean) * inverse, inverse, densities)


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
        return _FeaturesAdjoint.apply(gradient, *ctx.constants), None, None


class _FeaturesAdjoint(torch.autograd.Function):
    """J^T g, linear in g; its backward is J v."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, spectrum: Spectrum, basis: PairBasis) -> Tensor:
        ctx.constants = (spectrum, basis)
        return basis.adjoint(spectrum.adjoint(gradient))

    @staticmethod
    def backward(ctx: Any, vectors: Tensor) -> Any:  # type: ignore[override]
        spectrum, basis = ctx.constants
        return spectrum.tangent(basis.tangent(vectors)), None, None


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
        return basis.adjoint(list(gradients))

    @staticmethod
    def backward(ctx: Any, vectors: Tensor) -> Any:  # type: ignore[override]
        return (None, *ctx.basis.tangent(vectors))


def features(vectors: Tensor, spectrum: Spectrum, basis: PairBasis) -> Tensor:
    """The features as a function of the pair vectors (see the module's text)."""
    result = _Features.apply(vectors, spectrum, basis)
    assert isinstance(result, Tensor)
    return result


def densities(vectors: Tensor, blocks: list[Tensor], basis: PairBasis) -> list[Tensor]:
    """The density blocks as functions of the pair vectors, for models that train what follows."""
    return list(_Density.apply(vectors, basis, *blocks))
