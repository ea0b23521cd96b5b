"""Losses: how far predictions are from labels.

Every loss returns a numerator and a count instead of a mean, so that masked labels, batches of any
size and several processes all end in the same number: the sum of the numerators over the sum of the
counts. A loss that a package brings (``register_losses``) is a function that makes a :data:`Loss`
from the arguments in the options.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss

Loss = Callable[[Tensor, Tensor, "Tensor | None"], "tuple[Tensor, Tensor | float]"]
"""(prediction, label, mask) -> (numerator, count).

All three are ``[n_samples, width]``, a sample being a structure or an atom, in units of the target's
scale (per atom where a structure's value is a sum). The bool mask is False where there is no label;
None means everywhere. Both results must be sums over samples: those of parts of a batch add up to
those of the batch.
"""


def pointwise(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The loss that is a function of each entry; the count is the number of labels."""

    def loss(
        prediction: Tensor, label: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        each = function(prediction, label)
        if mask is None:
            return each.sum(), each.numel()
        return (each * mask).sum(), mask.sum()

    return loss


def _of_torch(function: Callable[..., Tensor]) -> Loss:
    """The same from one of torch's losses, which sums in the same pass: fewer calls, and derivatives."""
    masked = pointwise(partial(function, reduction="none"))

    def loss(
        prediction: Tensor, label: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        if mask is None:
            return function(prediction, label, reduction="sum"), label.numel()
        return masked(prediction, label, mask)

    return loss


def shift_agnostic_mse(
    grad_penalty_weight: float, int_weight: float, grid_step: float = 0.05
) -> Loss:
    """Squared error of a profile whose origin on the grid means nothing: a density of states.

    The prediction, with zeros before and behind, is shifted against the label by whole grid points
    to where the sum of the squared errors at labelled points, plus that of the squared predictions
    before the label's first point, is least; that least sum is the loss. Two terms may be added,
    integrated over the grid with the trapezoidal rule: the squared slope of the shifted prediction
    where there is no label, and the squared error of the integral up to each labelled point. The
    count is the number of samples with a label.

    The loss of How et al. (https://arxiv.org/abs/2508.17418) as metatrain has it, except that there
    the integral term mixes the structures of a batch.
    """

    def loss(
        prediction: Tensor, label: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        mask = torch.ones_like(label, dtype=torch.bool) if mask is None else mask
        width = label.shape[1]
        present = mask.any(dim=1)
        label = torch.where(mask, label, 0.0)
        profile = torch.nn.functional.pad(prediction, (width, width))
        shift = _best_shift(profile.detach(), label, mask)[:, None]

        # grid points of the profile, counted from the label's first one
        point = torch.arange(3 * width, device=label.device)[None, :] - shift
        aligned = profile.gather(1, shift + torch.arange(width, device=label.device)[None, :])
        each = ((aligned - label).square() * mask).sum(1)
        each = each + (profile.square() * (point < 0)).sum(1)

        if grad_penalty_weight > 0.0:
            # fourth order, from the point and the four before it
            slope = (
                25 / 12 * profile[:, 4:]
                - 4 * profile[:, 3:-1]
                + 3 * profile[:, 2:-2]
                - 4 / 3 * profile[:, 1:-3]
                + 1 / 4 * profile[:, :-4]
            ) / grid_step
            inside = (point >= 0) & (point < width)
            labelled = mask.gather(1, point.clamp(0, width - 1)) & inside
            free = ~(labelled | (point < 0))[:, 4:]
            each = each + grad_penalty_weight * torch.trapezoid(
                (slope * free).square(), dx=grid_step, dim=1
            )
        if int_weight > 0.0:
            error = torch.cumulative_trapezoid(aligned - label, dx=grid_step, dim=1)
            each = each + int_weight * torch.trapezoid(
                error.square() * mask[:, 1:], dx=grid_step, dim=1
            )
        return (each * present).sum(), present.sum()

    return loss


@torch.no_grad()
def _best_shift(profile: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """Where in each profile ``[n, 3 width]`` the label's first point is best put, ``[n]``.

    Among shifts that are equally good up to rounding, the one nearest to no shift (``width``).
    """
    width = label.shape[1]
    profile, label = profile.to(torch.float64), label.to(torch.float64)
    squares = profile.square()
    size = profile.shape[1]  # no wrapping around: shifts go up to size - width

    def spectrum(x: Tensor) -> Tensor:
        return torch.fft.rfft(x, size)

    # sums over the window of  mask profile^2 - 2 label profile,  for all shifts at once
    errors = torch.fft.irfft(
        spectrum(squares) * spectrum(mask.to(torch.float64)).conj()
        - 2.0 * spectrum(profile) * spectrum(label).conj(),
        size,
    )[:, : 2 * width + 1]
    before = squares.cumsum(1) - squares
    errors = errors + before[:, : 2 * width + 1]
    rounding = 1e-10 * (squares.sum(1) + label.square().sum(1))
    good = errors <= (errors.min(1).values + rounding)[:, None]
    distance = (torch.arange(2 * width + 1, device=label.device) - width).abs()
    return torch.where(good, distance, 3 * width).argmin(1)


def core_loss(name: str, arguments: dict[str, Any]) -> Loss:
    """One of the core's losses for numbers."""
    kind = name.removeprefix("masked_")
    if kind == "shift_agnostic_mse":
        return shift_agnostic_mse(**arguments)
    if kind == "mae":
        return _of_torch(l1_loss)
    if kind == "huber":
        return _of_torch(partial(huber_loss, **arguments))
    return _of_torch(mse_loss)
