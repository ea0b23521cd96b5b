"""A loss that blows up: the epoch is taken back, done again with smaller steps, and restarts know of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from helpers.training import train
from torch import nn

from atomtrain import api
from atomtrain.errors import AtomtrainError
from atomtrain.training.brake import Brake
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.engine import Engine


def spoil(monkeypatch: pytest.MonkeyPatch, by: dict[int, float], above: float) -> list[int]:
    """Steps of these epochs multiply weights while the factor on the rate is ``above``; the epochs of all steps."""
    steps: list[int] = []
    step = Engine.step

    def spoiled(self: Engine) -> None:
        step(self)
        steps.append(self.epoch)
        if self.epoch in by and self.brake.factor > above:
            with torch.no_grad():
                for p in self.parameters:
                    p.mul_(by[self.epoch])

    monkeypatch.setattr(Engine, "step", spoiled)
    return steps


@pytest.mark.parametrize("by", [{1: math.nan}, {1: 1.6, 2: math.nan}], ids=["at once", "slowly"])
def test_an_epoch_is_taken_back(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    by: dict[int, float],
) -> None:
    training = {
        "num_epochs": 4, "batch_size": 1, "checkpoint_interval": 1,
        "scheduler": "constant", "warmup_fraction": 0.0, "learning_rate": 1e-3,
    }  # fmt: skip
    steps = spoil(monkeypatch, by, above=0.3)
    result = train(tmp_path, monkeypatch, architecture={"name": "tables", "training": training})
    last = max(by)
    assert [steps.count(epoch) for epoch in range(4)] == [27 if e == last else 9 for e in range(4)]
    assert caplog.text.count("taken back") == 2
    since = "its beginning" if last == 1 else "the beginning of epoch 1"  # the last calm one
    assert f"epoch {last}: " in caplog.text and f"the weights of {since} are" in caplog.text
    assert "(0.00025 where the options say 0.001)" in caplog.text
    done = load_checkpoint(result.checkpoint)
    assert done["trainer"]["brake"]["factor"] == 0.25
    assert all(float(v.abs().max()) < 1e3 for v in done["model"]["last"].values())
    lines = next(tmp_path.glob("outputs/*/*/train.csv")).read_text().splitlines()[1:]
    rates = [float(line.split(",")[1]) for line in lines]
    assert rates[last:] == pytest.approx([0.25 * rates[0]] * (4 - last))
    # a restart goes on with the smaller steps, to the same end
    (after,) = tmp_path.glob(f"outputs/*/*/model_{last + 1}.ckpt")
    again = load_checkpoint(api.train("options.yaml", restart=after).checkpoint)
    for name, value in done["model"]["last"].items():
        assert torch.equal(value, again["model"]["last"][name])


def test_a_schedule_by_epochs_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = {
        "num_epochs": 4, "batch_size": 1, "warmup_fraction": 0.0, "learning_rate": 1e-3,
        "scheduler": {"StepLR": {"step_size": 1, "gamma": 0.5}},
    }  # fmt: skip
    spoil(monkeypatch, {1: 1.6, 2: math.nan}, above=0.3)
    train(tmp_path, monkeypatch, architecture={"name": "tables", "training": training})
    lines = next(tmp_path.glob("outputs/*/*/train.csv")).read_text().splitlines()[1:]
    rates = [float(line.split(",")[1]) for line in lines]
    assert rates == pytest.approx([1e-3, 5e-4, 0.25 * 2.5e-4, 0.25 * 1.25e-4])


def test_where_nothing_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {1: math.nan}, above=0.0)
    with pytest.raises(
        AtomtrainError, match=r"became nan in epoch 1, also with .* 3.9e-06 instead of 0.001"
    ):
        train(tmp_path, monkeypatch)


def test_what_a_training_can_go_on_from() -> None:
    brake = Brake(nn.Linear(2, 2))
    assert brake.holds([1e4, 1.0, 1e30, 1.0, 1.0, 1e30]) and not brake.holds([1.0, math.inf, 1.0])
    assert not brake.holds([1.0, 1e11, 1e11])  # a million times the first loss of all, 1e4
    assert brake.holds([1.0, 1e9, 1e9])
    brake.forget()
    assert brake.holds([1e6, 1e11, 1e11])
    with torch.no_grad():
        brake.model.weight.fill_(math.nan)  # after the last step
    assert not brake.holds([1.0, 1.0])
