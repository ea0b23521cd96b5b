"""The fast path: derivatives of the power spectrum in closed form, on those of the density.

Nothing before the network has a trainable parameter (with elements kept apart), so the features x
of a batch and their derivative J with respect to the pair vectors are constants. With an energy
E(x), training on forces needs

* J^T g with g = dE/dx, for the forces, which are linear in g;
* J v with v = dL/d(forces), the derivative of the former with respect to g.

Both are explicit products with arrays that do not depend on weights, through the spectrum here and
through the density in :mod:`atomtrain_density.derivatives`; two autograd functions wrap them, so autograd
sees only the small network. For second derivatives (Hessians) set ``SoapBpnn.plain``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atomtrain_density.derivatives import PairBasis, along_pairs
from atomtrain_soap_bpnn.descriptor.spectrum import SymmetricSpectrum


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
    n_atoms = len(spectrum.features)
    return along_pairs(
        vectors, centers, n_atoms, lambda: _ProductsAdjoint.apply(g, spectrum, basis)
    )
