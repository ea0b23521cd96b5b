"""Losses against plain loops, in parts and whole; losses that a package brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.installing import install
from helpers.models import energy_info

from atomtrain.contract import catalog
from atomtrain.errors import OptionsError
from atomtrain.losses import shift_agnostic_mse
from atomtrain.options import TrainerHypers, validate_hypers
from atomtrain.sections.document import Source
from atomtrain.targets import TargetInfo
from atomtrain.training.terms import loss_terms

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


def hypers(section: dict[str, Any]) -> TrainerHypers:
    source = Source()
    return validate_hypers(TrainerHypers, section, ("architecture", "training"), source)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("shift_agnostic_mse", "grad_penalty_weight: is missing"),
        ({"mtt::dos": {"type": "shift_agnostic_mse", "int_weight": 1}},
         "mtt::dos.grad_penalty_weight: is missing"),
        ({"type": "mse", "delta": 1.0}, "loss.delta: unknown key"),
        ({"type": "huber", "delta": -1}, "loss.delta: must be greater than 0"),
        ({"energy": {"type": "mse", "wieght": 2}}, "wieght: unknown key; did you mean 'weight'"),
        ({"energy": {"forces": {"type": "hubr"}}}, "there is no loss 'hubr'; did you mean 'huber'"),
    ],
)  # fmt: skip
def test_wrong_losses(loss: Any, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        hypers({"loss": loss})


def test_arguments_have_defaults() -> None:
    energy = TargetInfo("energy", quantity="energy", gradients=("forces",))
    found = hypers({"loss": {"energy": "masked_huber"}}).loss_for(energy)
    assert found.arguments == {"delta": 1.0}
    assert found.gradients["forces"].type == "mse"
    everywhere = hypers({"loss": {"type": "huber", "delta": 2, "forces": "mae"}}).loss_for(energy)
    assert everywhere.arguments == {"delta": 2.0}
    assert everywhere.gradients["forces"].type == "mae"


LOSS = """
from atomtrain.contract import ComponentSpec, hookimpl
@hookimpl
def register_losses():
    yield ComponentSpec("my-log-cosh", "a soft absolute error", lambda: make)
def make(sharpness: float, offset: float = 0.0):
    import torch
    from atomtrain.losses import pointwise
    if sharpness <= 0:
        raise ValueError(f"sharpness must be positive, got {sharpness}")
    return pointwise(lambda p, t: torch.log(torch.cosh(sharpness * (p - t))) + offset)
"""


def test_a_loss_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionsError, match="there is no loss 'my-log-cosh'"):
        hypers({"loss": "my-log-cosh"})
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "loss-package", LOSS, catalog.COMPONENTS)
    for section, message in (
        ("my-log-cosh", "loss 'my-log-cosh': .*missing .*'sharpness'"),
        ({"type": "my-log-cosh", "sharpness": -1}, "sharpness must be positive, got -1"),
        ({"type": "my-log-cosh", "sharpnes": 1}, "unknown key; did you mean 'sharpness'"),
        ("my-log-cos", "did you mean 'my-log-cosh'"),
    ):
        with pytest.raises(OptionsError, match=message):
            hypers({"loss": section})
    found = hypers({"loss": {"energy": {"type": "my-log-cosh", "sharpness": 2.0, "weight": 3}}})
    assert hypers(found.model_dump(mode="json")) == found
    term = loss_terms(energy_info(), found)[0]
    numerator, count = term(torch.ones(2, 1), torch.zeros(2, 1), None, torch.ones(2))
    assert float(numerator) == pytest.approx(3 * 2 * np.log(np.cosh(2.0)))
    assert count == 2
