"""Trainings of one's own: a fit in closed form that goes through everything, and every mistake people make in one."""

from __future__ import annotations

import csv
import importlib
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.installing import install
from helpers.training import train

from atomtrain.errors import AtomtrainError, OptionsError, PluginError
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.observers import EpochRecord, Observer
from atomtrain.training.run import TrainingRun

prepare = importlib.import_module("atomtrain.runs.prepare")  # the function has its module's name
HEAD = """
import tables_arch
from dataclasses import replace
from atomtrain.contract import hookimpl
from atomtrain.options import BaseTrainerHypers

class TrainerHypers(BaseTrainerHypers):
    ridges: list[float] = [1.0, 1e-3]

@hookimpl
def describe_architecture():
    info = tables_arch.describe_architecture()
    return replace(info, name="fitted", trainer_hypers=lambda: TrainerHypers, target_kinds=("scalar",))

@hookimpl
def build_model(dataset_info):
    import tables_model
    return tables_model.Tables(dataset_info)
"""

# The energy is linear in the tables: least squares with a ridge.
FIT = (
    HEAD
    + """
@hookimpl
def train_model(model, run):
    import torch

    head = model.heads["energy"]
    n = 200
    state = {
        "gram": torch.zeros(n, n, dtype=torch.float64),
        "rhs": torch.zeros(n, dtype=torch.float64),
        "rows": 0,
    }
    with run.session(state) as session:
        if run.data_changed:
            session.forget_pass("design matrix")
            state["gram"].zero_(), state["rhs"].zero_()
        for batch in session.batches("train", "design matrix", sums=("gram", "rhs")):
            graph = batch.graph
            pairs = (1.0 - graph.vectors.square().sum(1) / 9.0).clamp(min=0.0) ** 3
            density = torch.zeros_like(graph.positions[:, 0]).index_add(0, graph.centers, pairs)
            rows = torch.zeros(len(batch.n_atoms), n, dtype=torch.float64)
            rows.index_put_((graph.structure, graph.types), torch.ones(()).double(), accumulate=True)
            rows.index_put_((graph.structure, graph.types + 100), density.double(), accumulate=True)
            rows /= batch.n_atoms[:, None]
            state["gram"] += rows.T @ rows
            state["rhs"] += rows.T @ batch.labels["energy"][:, 0].double()
        ridges = run.hypers.ridges
        for stage in session.stages(len(ridges), anew=bool(run.changed_hypers or run.data_changed)):
            weights = torch.linalg.solve(
                state["gram"] + ridges[stage] * torch.eye(n, dtype=torch.float64), state["rhs"]
            )
            table, slope = weights.split(100)
            with torch.no_grad():
                head.table.weight.copy_(table[:, None])
                head.slope.weight.copy_(slope[:, None])
            session.validated(label={"ridge": ridges[stage]})
    return session.outcome()
"""
)


def run(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str = FIT,
    observers: list[Observer] | None = None,
    restart: str | None = None,
    **training: Any,
) -> Any:
    """A training by the plugin ``source``."""
    install(folder / "site", "fitted", source)
    sys.modules.pop("fitted", None)
    section = {
        "name": "fitted",
        "training": {"batch_size": 2, "checkpoint_interval": 1, **training},
    }
    options = {"restart": restart, "architecture": section}
    with monkeypatch.context() as patch:
        if observers:
            patch.setattr(prepare, "TrainingRun", partial(_observed, observers))
        return train(folder, monkeypatch, **options)


def _observed(more: list[Observer], /, **run: Any) -> TrainingRun:
    return TrainingRun(**{**run, "observers": [*run["observers"], *more]})


def kept(result: Any) -> str:
    """The checkpoint in the run's own folder, which later runs leave alone."""
    return str(result.directory / "model.ckpt")


def weights(result: Any, which: str = "best") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_checkpoint(kept(result))["model"][which]
    return found


class Kills(Observer):
    """Asks to stop at a moment."""

    def __init__(self, label: str = "", done: int = -1, epoch: int = -1) -> None:
        self.at = (label, done)
        self.epoch = epoch

    def on_progress(self, label: str, done: int, total: int, unit: str) -> None:
        if (label, done) == self.at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_epoch(self, record: EpochRecord) -> None:
        if record.epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_fit_goes_through_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(tmp_path, monkeypatch)
    with open(result.directory / "train.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == ["design matrix, 5 batches", "ridge 1", "ridge 0.001"]
    assert [row["epoch"] for row in rows] == ["", "0", "1"]
    assert "learning rate" not in rows[0]
    log = (result.directory / "train.log").read_text()
    assert "design matrix: 5 batches in" in log
    assert "ridge 1 | validation loss" in log
    assert "done; best stage" in log
    assert {p.name for p in result.directory.glob("*.ckpt")} == {
        "model_1.ckpt", "model_2.ckpt", "model.ckpt",
    }  # fmt: skip


@pytest.mark.parametrize(
    "moment", [Kills("design matrix", 2), Kills("design matrix", 5), Kills(epoch=0)]
)
def test_interrupted_anywhere_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: Kills
) -> None:
    whole = run(tmp_path, monkeypatch)
    stopped = run(tmp_path, monkeypatch, observers=[moment])
    assert stopped.interrupted
    done = run(tmp_path, monkeypatch, restart=str(stopped.checkpoint))
    assert not done.interrupted
    for which in ("last", "best"):
        for name, value in weights(whole, which).items():
            assert torch.equal(weights(done, which)[name], value), (which, name)


def test_a_restart_with_other_hypers_does_not_give_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path, monkeypatch)
    anew = run(tmp_path, monkeypatch, ridges=[0.3])
    again = run(tmp_path, monkeypatch, ridges=[0.3], restart=kept(first))
    log = (again.directory / "train.log").read_text()
    assert (
        "other hypers of the training than the checkpoint's (ridges: [1.0, 0.001] became [0.3])"
        in log
    )
    assert "design matrix" not in log  # it is in the checkpoint
    for name, value in weights(anew).items():
        assert torch.equal(weights(again)[name], value), name

    old = FIT.replace("anew=bool(run.changed_hypers or run.data_changed)", "")
    with pytest.raises(PluginError, match=r"other hypers \(ridges\) and left the result as it was"):
        run(tmp_path, monkeypatch, old, ridges=[0.3, 0.2], restart=kept(first))


def test_what_a_trainer_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("learning_rate", 0.1),
        ("scheduler", "cosine"),
        ("ema_decay", 0.9),
        ("early_stopping_patience", 3),
        ("num_epochs", 3),
        ("finetune", {"read_from": "x.ckpt"}),
        ("log_interval", 3),
    ):
        with pytest.raises(OptionsError, match=f"architecture.training.{name}"):
            run(tmp_path, monkeypatch, **{name: value})


OUTCOME = ("return session.outcome()", "out = session.outcome()\n    {}\n    return out")
SLOPE = "heads.energy.slope.weight"
STAGE = 'session.validated(label={"ridge": ridges[stage]})'
MISTAKES = {
    "nothing comes back": (
        ("    return session.outcome()\n", "\n"),
        r"'fitted' \(fitted 1.0\): train_model returned nothing; return session.outcome\(\) after the block",
    ),
    "something else comes back": (
        ("return session.outcome()", "return model"),
        r"train_model returned Tables, no TrainingOutcome; return session.outcome\(\)",
    ),
    "weights that are not finite": (
        (STAGE, "head.slope.weight.data.fill_(float('nan'))\n            " + STAGE),
        r"NaN in epoch 0, because weights are not finite: heads.energy.slope.weight",
    ),
    "weights of elements nobody looks at are not finite": (
        (STAGE, "head.slope.weight.data[90] = float('inf')\n            " + STAGE),
        r"the best_weights are not finite: heads.energy.slope.weight",
    ),
    "nothing is trained": (
        ("copy_(", "add_(0 * "),
        "train_model left all weights as they were: nothing was trained",
    ),
    "the validation set is never looked at": (
        (STAGE, "session.stage += 1"),
        r"never looked at the validation set: call session.validated\(...\)",
    ),
    "a stage without an end": ((STAGE, "pass"), r"stage 0 ended without session.validated"),
    "other precision": (
        ("head.table.weight.copy_(table[:, None])", "head.double().table.weight.copy_(table[:, None])"),
        r"'heads.energy.slope.weight' of the best_weights is float64, where float32 was asked for",
    ),
    "other names": (
        (OUTCOME[0], OUTCOME[1].format(f"out.best_weights.pop('{SLOPE}')")),
        r"best_weights are without 'heads.energy.slope.weight'",
    ),
    "other shapes": (
        (OUTCOME[0], OUTCOME[1].format(f"out.best_weights['{SLOPE}'] = head.slope.weight[1:]")),
        r"'heads.energy.slope.weight' of the best_weights has shape \[99, 1\], and \[100, 1\]",
    ),
    "a checkpoint without trainer": (
        (OUTCOME[0], OUTCOME[1].format("del out.checkpoint['trainer']")),
        r"train_model gave a checkpoint without a training state; return session.outcome",
    ),
    "an empty checkpoint": (
        (OUTCOME[0], OUTCOME[1].format("out.checkpoint = {}")),
        r"train_model gave a checkpoint without a training state",
    ),
    "a checkpoint without the header": (
        (OUTCOME[0], OUTCOME[1].format("out.checkpoint = {'trainer': {}}")),
        r"checkpoint without format, .*trainer.best_score",
    ),
    "an object in the state": (
        ('"rows": 0,', '"rows": {"solver": [object()]},'),
        r"run.session: state\['rows'\].solver\[0\] is builtins.object, which checkpoints cannot have",
    ),
    "an object that comes into the state": (
        ('for stage in', 'state["late"] = object()\n        for stage in'),
        r"state\['late'\] is builtins.object",
    ),
    "a name of the session's in the state": (
        ('"rows": 0,', '"epoch": 0,'), r"epoch in the state is the session's own"
    ),
    "a pass of the same label twice": (
        ("        ridges = run", "        list(session.batches('train', 'design matrix'))\n        ridges = run"),
        r"the pass 'design matrix' was gone through before",
    ),
    "an error inside": (
        ("table, slope = ", "raise ValueError('singular')\n            table, slope = "),
        r"failed in train_model: ValueError: singular. Report it .*atomtrain --traceback",
    ),
    "no memory": (
        ("table, slope = ", "raise MemoryError\n            table, slope = "),
        r"failed in train_model: MemoryError. There is not enough memory for it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_a_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (old, new), message = MISTAKES[name]
    assert old in FIT
    with pytest.raises(AtomtrainError, match=message):
        run(tmp_path, monkeypatch, FIT.replace(old, new))
    assert not list(tmp_path.glob("model*"))  # there is nothing to be trusted
    if name == "an error inside":
        (log,) = tmp_path.rglob("train.log")
        assert "Traceback" in log.read_text() and "singular" in log.read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "@hookimpl\ndef train_model",
            "def train_model",
            r"'train_model' is a hook but lacks @hookimpl, and would never be asked; .*fitted.py:2\d\)",
        ),
        (
            "def train_model(model",
            "def train_modle(model",
            r"there is no hook 'train_modle'; did you mean 'train_model'\? \(.*fitted.py:2\d\)",
        ),
        (
            "def train_model(model, run)",
            "def train_model(model, runs)",
            r"the hook 'train_model' has no argument 'runs'; did you mean 'run'\? \(.*fitted.py",
        ),
    ],
)
def test_hooks_that_would_never_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        run(tmp_path, monkeypatch, FIT.replace(old, new))


def test_the_default_never_trains_on_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that forgets its return is no invitation to the default either."""
    source = FIT + "\n@hookimpl\ndef export_model(predictor):\n    pass\n"
    with pytest.raises(PluginError, match="does not answer the hook export_model"):
        run(tmp_path, monkeypatch, source)
    assert (tmp_path / "model.ckpt").is_file()
