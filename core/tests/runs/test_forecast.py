"""A dry run: what a training would take, tried on a few batches; nothing is left, and nothing is changed."""

from __future__ import annotations

import csv
import math
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.installing import install
from helpers.training import train
from typer.testing import CliRunner

from atomtrain import api
from atomtrain.cli.app import app
from atomtrain.runs.prepare import Prepared
from atomtrain.training import trial as trials
from atomtrain.training.observers import Observer
from atomtrain.training.trial import Trial

# A trainer of its own: a pass through everything, then two stages; or a search without an end.
OWN = """
import tables_arch
from dataclasses import replace
from atomtrain.contract import hookimpl
from atomtrain.options import BaseTrainerHypers

class TrainerHypers(BaseTrainerHypers):
    endless: bool = False

@hookimpl
def describe_architecture():
    info = tables_arch.describe_architecture()
    return replace(info, name="own", trainer_hypers=lambda: TrainerHypers, target_kinds=("scalar",))

@hookimpl
def build_model(dataset_info):
    import tables_model
    return tables_model.Tables(dataset_info)

@hookimpl
def train_model(model, run):
    import torch
    with run.session({"sum": torch.zeros(())}) as session:
        for batch in session.batches("train", "labels", sums=("sum",)):
            session.state["sum"] += batch.labels["energy"].sum().float()
        while run.hypers.endless:
            session.full_gradient()
        for stage in session.stages(2):
            with torch.no_grad():
                model.heads["energy"].table.weight += session.state["sum"] + stage
            session.validated(label={"stage": stage})
    return session.outcome()
"""


def everything(folder: Path) -> dict[str, int]:
    """All that is in a folder, with the times at which files were written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns if path.is_file() else 0
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def rows(result: Any) -> list[dict[str, str]]:
    """``train.csv`` without times."""
    with (result.directory / "train.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "time")} for row in found]


def test_nothing_is_left_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # nor in the system's folder
    first = train(tmp_path, monkeypatch)
    before = everything(tmp_path)
    heard = []
    monkeypatch.setattr(Observer, "on_start", lambda self, *_: heard.append(self))
    found = api.dry_run("options.yaml")
    assert everything(tmp_path) == before and not heard
    assert found.structures == {"training": 9, "validation": 3}
    assert (found.epochs, found.steps) == (3, 3) and not found.unknown
    assert 0 < found.step < found.epoch < found.total and found.parameters > 0
    sizes = {path: size for path, size in found.files.items() if path.startswith("model")}
    assert sizes["model.ckpt"] == pytest.approx(first.checkpoint.stat().st_size, rel=0.2)
    assert sizes["model.pt"] == pytest.approx(Path("model.pt").stat().st_size, rel=0.1)
    said = capsys.readouterr().out
    assert "an epoch has 3" in said and "in all, with 3 epochs" in said

    monkeypatch.setattr(Prepared, "rehearse", lambda *_: 1)  # it was seen to export
    again = api.dry_run("options.yaml", restart="auto")
    assert again.epochs == 0 and math.isnan(again.total)
    assert again.unknown == ["the time of a step: nothing is left to be trained"]
    longer = ["architecture.training.num_epochs=5", "architecture.training.accumulate=2"]
    assert api.dry_run("options.yaml", restart="model.ckpt", overrides=longer).epochs == 2
    tuned = ["architecture.training.finetune={read_from: model.ckpt}"]
    assert api.dry_run("options.yaml", overrides=tuned).epochs == 3
    assert everything(tmp_path) == before
    assert rows(api.train("options.yaml")) == rows(first)
    done = CliRunner().invoke(app, ["train", "options.yaml", "--dry-run", "-o", "there/model.pt"])
    assert "the directory 'there' does not exist" in str(done.exception)


def test_a_job_that_is_ended_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM while data are read."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(api, "train", lambda *_, **__: None)
        train(tmp_path, monkeypatch)
    before = everything(tmp_path)
    monkeypatch.setattr(api, "prepare", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        api.dry_run("options.yaml")
    assert everything(tmp_path) == before


def test_trainers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", "own", OWN)
    sys.modules.pop("own", None)
    monkeypatch.setattr(api, "finish", lambda *_: None)
    section: dict[str, Any] = {"name": "own", "training": {"batch_size": 2}}
    with monkeypatch.context() as patch:
        patch.setattr(api, "train", lambda *_, **__: None)
        train(tmp_path, monkeypatch, architecture=section)
    found = api.dry_run("options.yaml")
    assert found.epochs == 2 and found.steps == 0 and math.isnan(found.step)
    assert found.once > 0 and found.total > found.epoch and not found.unknown
    assert any("stages" in line for line in found.lines())
    monkeypatch.setattr(Prepared, "rehearse", lambda *_: 1)
    assert api.dry_run("options.yaml", overrides=["validation_set=0"]).total > 0

    monkeypatch.setattr(trials, "PATIENCE", 0.1)
    endless = api.dry_run("options.yaml", overrides=["architecture.training.endless=true"])
    assert (
        math.isnan(endless.total) and "goes through the data in its own way" in endless.unknown[0]
    )

    monkeypatch.setattr(trials, "PATIENCE", 100.0)
    monkeypatch.setattr(Trial, "begin_stage", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        api.dry_run("options.yaml")


def test_which_batches_are_tried() -> None:
    n_atoms = torch.tensor([5, 1, 9, 2, 3, 4])
    batches = [torch.tensor([k]) for k in range(6)]

    def sizes(part: str, parts: int) -> list[int]:
        some = Trial(torch.device("cpu"), parts).some(part, batches, n_atoms)
        return [int(n_atoms[batch].sum()) for batch in some]

    assert sizes("train", 1) == [9, 4, 4] == sizes("validation", 2)
    assert sizes("train", 2) == [5, 9, 3, 4, 3, 4]
    assert len(sizes("train", 50)) == 18
    assert Trial(torch.device("cpu")).some("train", [], n_atoms) == []
