"""Trainings without a validation set: the best model is the last one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training import train

from atomtrain import api
from atomtrain.errors import OptionsError
from atomtrain.training.checkpoint import load_checkpoint


def tables(**training: Any) -> dict[str, Any]:
    return {"name": "tables", "training": {"num_epochs": 3, "batch_size": 3, **training}}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Four epochs without validation, with the folder they are in; two thirds of its checkpoints."""
    folder = tmp_path_factory.mktemp("without")
    with pytest.MonkeyPatch.context() as patch:
        hypers = {"num_epochs": 4, "checkpoint_interval": 2, "ema_decay": 0.5}
        yield train(folder, patch, architecture=tables(**hypers), validation_set=0), folder


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_the_last_model_is_the_best(done: tuple[api.TrainingResult, Path]) -> None:
    result, folder = done
    checkpoint = load_checkpoint(folder / result.checkpoint)
    assert checkpoint["trainer"]["best_epoch"] == 3
    average = list(checkpoint["trainer"]["average"])  # it is what is exported
    best = [checkpoint["model"]["best"][name] for name in checkpoint["model"]["last"]]
    assert all(any(torch.equal(b, a) for a in average) for b in best if b.is_floating_point())
    said = (folder / result.directory / "train.log").read_text()
    assert "no validation set: the best model is the last one" in said
    assert "validating on nothing" in said and "validation loss" not in said
    assert "best epoch 3, the last: there is no validation set" in said
    assert set(result.errors) == {"training"}
    with open(folder / result.directory / "train.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert not any("validation" in name or "nan" in text for r in rows for name, text in r.items())
    assert all(float(row["training energy RMSE [meV/atom]"]) > 0 for row in rows)


def test_a_restart_is_exact_and_may_bring_validation(
    done: tuple[api.TrainingResult, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = done
    monkeypatch.chdir(folder)
    whole = load_checkpoint(result.checkpoint)
    half = result.directory / "model_2.ckpt"
    again = load_checkpoint(api.train("options.yaml", output="again.pt", restart=half).checkpoint)
    for part in ("last", "best"):
        assert same(whole["model"][part], again["model"][part])

    # now there is one: the last weights are judged by it, and those that come
    more = ["validation_set=0.25", "architecture.training.num_epochs=6"]
    judged = api.train("options.yaml", output="b.pt", restart=result.checkpoint, overrides=more)
    assert "were judged anew" in (judged.directory / "train.log").read_text()
    assert load_checkpoint(judged.checkpoint)["trainer"]["best_score"] < float("inf")
    # and now there is none any more
    more = ["architecture.training.num_epochs=7"]
    last = api.train("options.yaml", output="c.pt", restart=judged.checkpoint, overrides=more)
    assert "there is no validation set any more" in (last.directory / "train.log").read_text()
    assert load_checkpoint(last.checkpoint)["trainer"]["best_epoch"] == 6


def test_fine_tuning_without_validation(
    done: tuple[api.TrainingResult, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = done
    monkeypatch.chdir(folder)
    more = [f"architecture.training.finetune.read_from={result.checkpoint}"]
    tuned = api.train("options.yaml", output="tuned.pt", overrides=more)
    assert load_checkpoint(tuned.checkpoint)["trainer"]["best_epoch"] == 3


def test_what_needs_a_validation_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = r"options.yaml:\d+: architecture.training.early_stopping_patience: without a validation"
    with pytest.raises(OptionsError, match=where):
        architecture = tables(early_stopping_patience=2)
        train(tmp_path, monkeypatch, architecture=architecture, validation_set=0)


def test_the_plateau_is_that_of_the_training_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"patience": 0, "threshold": 1e9, "threshold_mode": "abs", "factor": 0.5}
    hypers = {"scheduler": {"ReduceLROnPlateau": given}, "warmup_fraction": 0.0}
    result = train(tmp_path, monkeypatch, architecture=tables(**hypers), validation_set=0)
    with open(result.directory / "train.csv", encoding="utf-8") as file:
        rates = [float(row["learning rate"]) for row in csv.DictReader(file)]
    assert rates[1] == rates[0] and rates[2] == 0.5 * rates[1]
