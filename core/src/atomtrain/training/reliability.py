"""Whether predicted standard deviations are the size of the errors: what is said of them, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = tuple(k / 20 for k in range(1, 20))
"""shares of a Gaussian at which :class:`Reliability` compares"""


@dataclass(frozen=True)
class Reliability:
    """Errors held against the standard deviations that were predicted for them.

    Attributes
    ----------
    count: how many errors.
    levels, shares: the curve: of intervals that should hold a share ``levels[k]`` of all errors, if they are Gaussian,
        that share does.
    area: the miscalibration area, between that curve and the diagonal: 0 at best, 0.5 at worst.
    ratio: root mean square of error over standard deviation; 1 is right, above errors are larger than said.
    beyond_two_sigma: share of errors above twice the standard deviation; 0.046 if Gaussian.
    nll: mean negative log likelihood, with errors in the unit they are counted in.
    rank_correlation: Spearman's, of absolute errors and standard deviations; NaN where either is the same everywhere.
    rank_if_gaussian: what that would be if errors were Gaussian with just these standard deviations. One error says
        little of its distribution, so it is far below 1 where all are alike.
    """

    count: int
    levels: tuple[float, ...]
    shares: tuple[float, ...]
    area: float
    ratio: float
    beyond_two_sigma: float
    nll: float
    rank_correlation: float
    rank_if_gaussian: float

    @classmethod
    def of(cls, errors: Tensor, sigma: Tensor) -> Reliability:
        """Of ``errors`` and ``sigma`` of one shape; entries that are not finite (no label) are left out."""
        errors, sigma = errors.flatten().double().cpu(), sigma.flatten().double().cpu()
        there = torch.isfinite(errors) & torch.isfinite(sigma)
        errors, sigma = errors[there], sigma[there].clamp(min=1e-300)
        if len(errors) == 0:
            nothing = (math.nan,) * len(LEVELS)
            return cls(0, LEVELS, nothing, *[math.nan] * 6)
        z = (errors / sigma).abs()
        levels = torch.tensor(LEVELS, dtype=torch.float64)
        bounds = math.sqrt(2.0) * torch.erfinv(levels)
        shares = torch.searchsorted(z.sort().values, bounds, right=True) / len(z)
        # what the n-th largest error should be at, for any level: the area needs no steps
        expected = torch.erf(z.sort().values / math.sqrt(2.0))
        found = (torch.arange(len(z), dtype=torch.float64) + 0.5) / len(z)
        area = torch.trapezoid(
            torch.nn.functional.pad(found - expected, (1, 1)).abs(),
            torch.nn.functional.pad(torch.nn.functional.pad(expected, (1, 0)), (0, 1), value=1.0),
        )
        return cls(
            count=len(z),
            levels=LEVELS,
            shares=tuple(shares.tolist()),
            area=float(area),
            ratio=float(z.square().mean().sqrt()),
            beyond_two_sigma=float((z > 2.0).double().mean()),
            nll=float(surprises(errors, sigma).mean()),
            rank_correlation=_correlation(_ranks(errors.abs()), _ranks(sigma)),
            rank_if_gaussian=_if_gaussian(sigma),
        )

    def line(self) -> str:
        """The numbers in words."""
        ranks = ""
        if not math.isnan(self.rank_correlation):
            ranks = (
                f", rank correlation of error and uncertainty {self.rank_correlation:.2f} "
                f"({self.rank_if_gaussian:.2f} if errors were Gaussian)"
            )
        return (
            f"RMS of error / uncertainty {self.ratio:.3g}, {100 * self.beyond_two_sigma:.3g} % beyond twice the "
            f"uncertainty, miscalibration area {self.area:.3g}{ranks}, NLL {self.nll:.3g} ({self.count} errors)"
        )


def surprises(errors: Tensor, sigma: Tensor) -> Tensor:
    """The negative logarithm of each error's likelihood, if errors are Gaussian of these widths, of their shape."""
    return 0.5 * (errors / sigma).square() + sigma.log() + 0.5 * math.log(2.0 * math.pi)


def spread_of_gradients(members: Tensor, leaves: list[Tensor]) -> Tensor:
    """Standard deviation ``[n, 3]`` over an ensemble of how its members' sums change with ``leaves [*, 3]``.

    ``members [n_structures, n_members]``. One pass backwards for each.
    """
    n = members.shape[1]
    found = [
        torch.autograd.grad(
            members[:, k].sum(),
            leaves,
            retain_graph=k < n - 1,
            allow_unused=True,
            materialize_grads=True,
        )
        for k in range(n)
    ]
    return torch.stack([torch.cat(parts) for parts in found]).std(0)


def _if_gaussian(sigma: Tensor, n: int = 10_000) -> float:
    """The rank correlation of ``sigma`` and Gaussian errors of these sizes, from ``n`` of them or more."""
    many = sigma.repeat(-(-n // len(sigma)))
    normal = torch.randn(len(many), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return _correlation(_ranks((many * normal).abs()), _ranks(many))


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 0; equal values share the mean of theirs."""
    _, which, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - 0.5 * (counts + 1).double())[which]


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else math.nan
