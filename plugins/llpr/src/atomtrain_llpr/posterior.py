"""How sure a linear layer can be of its weights, given what it was trained on.

A layer ``y = f w`` that was fitted to samples with features ``F [n, D]`` by least squares with a ridge has the
distribution of weights ``N(w, alpha^2 (F^T F + r)^-1)``, whose predictions have the variance
``alpha^2 f (F^T F + r)^-1 f^T``. For the last layer of a network that is the last-layer prediction rigidity of
F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024), eq. 24. Everything is in
float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from atomtrain.training.reliability import surprises

NEGLIGIBLE = 1e-4
"""Directions of which the data say this little, beside the ridge, count as unknown: variances change by less."""
DECADES = {torch.float32: 9, torch.float64: 11}
"""How far below the largest eigenvalue a ridge may be, as a power of ten, by the precision of the features: their
rounding errors are divided by its root."""


WELL_KNOWN = 1e3
"""Eigenvalues this much larger than the ridge are not left to single precision."""
SMALL = 2**17
"""Numbers that are read too quickly for precision to matter"""


class Spectrum(NamedTuple):
    """Eigenvalues ``[D]`` and eigenvectors ``[D, D]``, in columns, of ``F^T F``."""

    values: Tensor
    vectors: Tensor


def spectrum(covariance: Tensor) -> Spectrum:
    """That of ``F^T F [D, D]``."""
    symmetric = 0.5 * (covariance + covariance.t())
    values, vectors = torch.linalg.eigh(symmetric)
    return Spectrum(values.clamp(min=0.0), vectors)


def ridges(found: Spectrum, precision: torch.dtype) -> list[float]:
    """Ridges to choose from, the largest first."""
    largest = max(float(found.values[-1]), 1e-300)
    return [largest * 10.0**-k for k in range(2, DECADES[precision] + 1)]


def taken_off(found: Spectrum, ridge: float) -> Tensor:
    """What is taken off ``1 / ridge`` along each eigenvector, ``[D]``; 0 where nothing is known."""
    taken = 1.0 / ridge - 1.0 / (found.values + ridge)
    return torch.where(found.values > NEGLIGIBLE * ridge, taken, 0.0)


def spread(features: Tensor, basis: Tensor, taken: Tensor, floor: Tensor) -> Tensor:
    """``sqrt(f (F^T F + r)^-1 f^T)``, ``[n]``, of ``features [n, D]``, with ``floor = 1 / r``.

    ``basis [D, k]`` and ``taken [k]`` are of the eigenvectors of which something is known. TorchScript compiles it.
    """
    x = torch.mm(features, basis)
    variance = floor * torch.linalg.vecdot(features, features) - torch.mv(x * x, taken)
    return variance.clamp(min=1e-30).sqrt()


def quick_spread(
    features: Tensor, basis: Tensor, taken: Tensor, floor: Tensor, rest: Tensor, taken_rest: Tensor
) -> Tensor:
    """The same where most eigenvectors are in ``rest [D, k]``, in single precision, which has half the bytes.

    What is lost is a rounding error times ``1 + eigenvalue / r``, so those of large eigenvalues are in ``basis``.
    """
    variance = floor * torch.linalg.vecdot(features, features)
    left = features
    if basis.shape[1] > 0:
        x = torch.mm(features, basis)
        variance = variance - torch.mv(x * x, taken)
        left = features - torch.mm(x, basis.t())
    y = torch.mm(left.to(rest.dtype), rest)
    variance = variance - torch.mv(y * y, taken_rest).to(variance.dtype)
    return variance.clamp(min=1e-30).sqrt()


def deviations(covariance: Tensor, ridge: float, n: int, seed: int) -> Tensor:
    """Weights of ``n`` layers drawn from the distribution for ``alpha = 1``, minus their mean: ``[D, n]``."""
    generator = torch.Generator().manual_seed(seed)
    matrix = 0.5 * (covariance + covariance.t())
    matrix = matrix + ridge * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    factor = torch.linalg.cholesky(matrix)
    normal = torch.randn(len(matrix), n, dtype=torch.float64, generator=generator)
    drawn = torch.linalg.solve_triangular(factor.t(), normal.to(matrix), upper=True)
    return drawn - drawn.mean(1, keepdim=True)


def calibrated(errors: Tensor, spreads: Tensor, method: str) -> Tensor:
    """The factor ``alpha [width]`` for ``errors [n, width]`` (NaN where there is none) and ``spreads [n]``."""
    ratio = (errors / spreads.unsqueeze(1)).abs()
    if method == "squared_residuals":
        return ratio.square().nanmean(0).sqrt()
    if method == "absolute_residuals":
        return ratio.nanmean(0) * math.sqrt(math.pi / 2.0)
    return _least_crps(errors, spreads.unsqueeze(1))


def surprise(errors: Tensor, sigma: Tensor) -> Tensor:
    """Mean negative logarithm of the likelihood of ``errors``, where there are any, for ``sigma`` of their shape."""
    return surprises(errors, sigma).nanmean()


def _least_crps(errors: Tensor, spreads: Tensor) -> Tensor:
    """``alpha [width]`` with the least mean CRPS of Gaussians, by bisection of its slope.

    With its width s the CRPS of a Gaussian (Gneiting and Raftery, J. Am. Stat. Assoc. 102, 359, eq. 21) changes by
    ``2 phi(z) - 1 / sqrt(pi)``, where z is the error over s. That grows with s, so there is one root.
    """
    start = calibrated(errors, spreads[:, 0], "squared_residuals").clamp(min=1e-300)
    low, high = 1e-4 * start, 1e2 * start
    for _ in range(100):
        middle = (low * high).sqrt()
        z = errors / (middle * spreads)
        density = torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi)
        slope = (spreads * (2.0 * density - 1.0 / math.sqrt(math.pi))).nansum(0)
        too_wide = slope > 0
        low, high = torch.where(too_wide, low, middle), torch.where(too_wide, middle, high)
    return (low * high).sqrt()
