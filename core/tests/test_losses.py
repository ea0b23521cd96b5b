"""Losses against plain loops, in parts and whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atomtrain.losses import shift_agnostic_mse

STEP = 0.05


def brute_force(
    prediction: np.ndarray, label: np.ndarray, mask: np.ndarray, slope: float, integral: float
) -> float:
    """The shift agnostic loss of one profile, written out."""
    width = len(label)
    profile = np.concatenate([np.zeros(width), prediction, np.zeros(width)])
    best, best_shift = np.inf, 0
    for shift in range(2 * width + 1):
        window = profile[shift : shift + width]
        error = (((window - label) ** 2)[mask]).sum() + (profile[:shift] ** 2).sum()
        if error < best - 1e-12:
            best, best_shift = error, shift
    total = best
    squares = []
    for k in range(4, 3 * width):
        f = profile[k - 4 : k + 1]
        derivative = (3 * f[0] - 16 * f[1] + 36 * f[2] - 48 * f[3] + 25 * f[4]) / 12 / STEP
        inside = 0 <= k - best_shift < width
        free = not (k < best_shift or (inside and mask[k - best_shift]))
        squares.append(derivative**2 * free)
    total += slope * np.trapezoid(squares, dx=STEP)
    window = profile[best_shift : best_shift + width]
    label = np.where(mask, label, 0.0)
    errors = [
        np.trapezoid(window[: k + 1], dx=STEP) - np.trapezoid(label[: k + 1], dx=STEP)
        for k in range(1, width)
    ]
    return float(total + integral * np.trapezoid(np.square(errors) * mask[1:], dx=STEP))


def profiles(n: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy predictions, shifted labels, masks that end somewhere."""
    generator = torch.Generator().manual_seed(n * width)
    x = torch.linspace(-1, 1, width, dtype=torch.float64)
    center = 0.3 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    label = torch.exp(-(((x - center) / 0.2) ** 2))
    prediction = label.roll(3, 1) + 0.05 * torch.randn(
        n, width, generator=generator, dtype=torch.float64
    )
    ends = torch.randint(width // 2, width + 1, (n, 1), generator=generator)
    return prediction, label, torch.arange(width)[None, :] < ends


@pytest.mark.parametrize(("slope", "integral"), [(0.0, 0.0), (1e-3, 0.0), (0.0, 2.0), (0.1, 0.5)])
def test_shift_agnostic_loss(slope: float, integral: float) -> None:
    prediction, label, mask = profiles(4, 30)
    loss = shift_agnostic_mse(slope, integral)
    numerator, count = loss(prediction, label, mask)
    each = [
        brute_force(p, t, m, slope, integral)
        for p, t, m in zip(prediction.numpy(), label.numpy(), mask.numpy(), strict=True)
    ]
    assert float(count) == 4
    assert float(numerator) == pytest.approx(sum(each), rel=1e-10)
    # parts of a batch add up to the batch, whatever the number of processes
    parts = [loss(prediction[k], label[k], mask[k]) for k in (slice(0, 1), slice(1, 4))]
    assert float(sum(n for n, _ in parts)) == pytest.approx(float(numerator), rel=1e-12)


def test_a_shift_costs_nothing_and_no_label_counts_nothing() -> None:
    _, label, _ = profiles(2, 40)
    loss = shift_agnostic_mse(0.0, 1.0)
    shifted = torch.nn.functional.pad(label, (0, 5))[:, 5:]
    shifted[:, :1] = 0  # what the shift moved over the edge is lost
    assert float(loss(shifted, label, None)[0]) < 0.02 * float((shifted - label).square().sum())
    nothing = torch.zeros_like(label, dtype=torch.bool)
    numerator, count = shift_agnostic_mse(1.0, 1.0)(label, label, nothing)
    assert (float(numerator), float(count)) == (0.0, 0.0)
    # a prediction of zeros, as good anywhere, stays where it is and can learn
    zeros = torch.zeros_like(label, requires_grad=True)
    (gradient,) = torch.autograd.grad(shift_agnostic_mse(0.0, 0.0)(zeros, label, None)[0], zeros)
    assert torch.equal(gradient, -2 * label)
