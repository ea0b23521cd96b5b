"""The section ``loss``: its forms, what is wrong in it, losses that a package brings."""

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
from atomtrain.options import TrainerHypers, validate
from atomtrain.sections.document import Source
from atomtrain.targets import TargetInfo
from atomtrain.training.terms import loss_terms


def hypers(section: dict[str, Any]) -> TrainerHypers:
    source = Source()
    return validate(TrainerHypers, section, ("architecture", "training"), source)


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
    spelt_twice = {"forces": {"weight": 10}, "gradients": {"positions": {"type": "mae"}}}
    both = hypers({"loss": {"energy": spelt_twice}}).loss_for(energy).gradients["forces"]
    assert (both.type, both.weight) == ("mae", 10)


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
