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


def spoil(monkeypatch: pytest.MonkeyPatch, by: float, above: float) -> list[int]:
    """Steps of epoch 1 multiply weights while the factor on the learning rate is ``above``; the epochs of all steps."""
    steps: list[int] = []
    step = Engine.step

    def spoiled(self: Engine) -> None:
        step(self)
        steps.append(self.epoch)
        if self.epoch == 1 and self.brake.factor > above:
            with torch.no_grad():
                for p in self.parameters:
                    p.mul_(by)

    monkeypatch.setattr(Engine, "step", spoiled)
    return steps


@pytest.mark.parametrize("by", [math.nan, 1e4])
def test_an_epoch_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, by: float
) -> None:
    plain, spoiled = tmp_path / "plain", tmp_path / "spoiled"
    for folder in (plain, spoiled):
        folder.mkdir()
    training = {
        "num_epochs": 3,
        "batch_size": 1,
        "checkpoint_interval": 1,
        "scheduler": "constant",
        "warmup_fraction": 0.0,
        "learning_rate": 1e-3,
    }
    options = {"architecture": {"name": "tables", "training": training}}
    train(plain, monkeypatch, **options)
    steps = spoil(monkeypatch, by, above=0.3)
    result = train(spoiled, monkeypatch, **options)
    assert [steps.count(epoch) for epoch in range(3)] == [9, 27, 9]  # twice in vain
    assert caplog.text.count("the epoch is taken back") == 2
    assert "0.00025 where the options say 0.001" in caplog.text
    done = load_checkpoint(result.checkpoint)
    assert done["trainer"]["brake"]["factor"] == 0.25
    assert all(bool(v.isfinite().all()) for v in done["model"]["last"].values())
    csvs = [
        next(f.glob("outputs/*/*/train.csv")).read_text().splitlines() for f in (plain, spoiled)
    ]
    assert csvs[0][1].split(",")[:3] == csvs[1][1].split(",")[:3]  # until then nothing is new
    rates = [float(line.split(",")[1]) for line in csvs[1][1:]]
    assert rates[1] == pytest.approx(0.25 * rates[0]) and rates[2] == rates[1]
    # a restart goes on with the smaller steps, to the same end
    (after,) = spoiled.glob("outputs/*/*/model_2.ckpt")
    again = load_checkpoint(api.train("options.yaml", restart=after).checkpoint)
    for name, value in done["model"]["last"].items():
        assert torch.equal(value, again["model"]["last"][name])


def test_where_nothing_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, math.nan, above=0.0)
    with pytest.raises(
        AtomtrainError, match=r"became nan in epoch 1, also with .* 3.9e-06 instead of 0.001"
    ):
        train(tmp_path, monkeypatch)


def test_what_is_a_jump() -> None:
    brake = Brake(nn.Linear(2, 2))

    def epoch(*losses: float) -> bool:
        good = brake.holds(losses)
        if good:
            brake.release()
        return good

    assert epoch(1e4, 1e4, 100.0, 100.0)
    assert epoch(1.0, 1e6, 1.0, 1e6, 1.0)  # single steps may spike
    assert epoch(1.0, 9.0, 9.0)  # of the order of the lowest
    assert not epoch(1.0, 11.0, 11.0)
    assert epoch(1.0, 0.01, 0.01)
    assert epoch(0.5, 0.5) and not epoch(
        2.0, 2.0
    )  # half of what was gained, from 100 to 0.01, is lost at 1
    assert not epoch(math.inf, 0.01, 0.01)
    with torch.no_grad():
        brake.model.weight.fill_(math.nan)  # after the last step
    assert not epoch(0.01, 0.01)
