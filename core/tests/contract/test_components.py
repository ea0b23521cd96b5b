"""Packages without an architecture: reader, task, loss, observers, evaluations, command, all installed."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import ase.io
import pytest
from helpers.installing import install
from helpers.processes import atomtrain
from helpers.training import train

from atomtrain import api
from atomtrain.contract import catalog, component
from atomtrain.data import build_datasets
from atomtrain.errors import AtomtrainError, OptionsError, PluginError
from atomtrain.options import load_options
from atomtrain.training.checkpoint import load_checkpoint

# One distribution that offers all there is to offer. Its code is imported only when it is used.
PLUGIN = """
from atomtrain.contract import ComponentSpec, EvaluationSpec, hookimpl

def part(name):
    def load():
        import extras_parts
        return getattr(extras_parts, name)
    return load

@hookimpl
def register_dataset_readers():
    yield ComponentSpec("reversed", "a file of ASE from its end", part("read_reversed"))

@hookimpl
def register_tasks():
    yield ComponentSpec("direction", "vectors of length one", part("Direction"))

@hookimpl
def register_losses():
    return [ComponentSpec("quartic", "fourth powers", part("quartic"))]

@hookimpl
def register_observers():
    yield ComponentSpec("diary", "writes down what it hears", part("Diary"))
    yield ComponentSpec("clumsy", "falls over", part("Clumsy"))

@hookimpl
def register_evaluations():
    yield EvaluationSpec("last", "counts what others found", part("last"), always=True)
    yield ComponentSpec("counted", "writes down how many structures there are", part("counted"))
    yield ComponentSpec("hopeless", "falls over", part("hopeless"))
    yield ComponentSpec("picky", "asks for dipoles", part("Picky"))
"""

PARTS = """
from pathlib import Path

def read_reversed(path, where):
    from atomtrain.data.readers import read_ase
    return read_ase(path, where)[::-1]

def quartic(factor=1.0):
    if factor <= 0:
        raise ValueError("factor must be positive")
    def loss(prediction, label, mask):
        each = factor * (prediction - label) ** 4
        if mask is None:
            return each.sum(), each.numel()
        return (each * mask).sum(), mask.sum()
    return loss

from dataclasses import replace
import numpy as np
from atomtrain.tasks import Task
from atomtrain.training.observers import Observer

class Direction(Task):
    kind = "direction"
    losses = ("mse",)
    def complete(self, info):
        return replace(info, layout="cartesian", rank=1, per_atom=True)
    def row(self, value, info, structure):
        length = np.linalg.norm(value, axis=1, keepdims=True)
        if (length == 0).any():
            raise ValueError("a vector of length zero has no direction")
        return value / length

class Diary(Observer):
    def __init__(self, page="diary.txt"):
        self.page = page
    def write(self, line):
        with open(self.path, "a") as file:
            file.write(line + "\\n")
    def on_start(self, run, info):
        self.path = run.directory / self.page
        self.write(f"start {len(run.train)} {info['num_epochs']} {run.header['options']['seed']}")
    def on_epoch(self, record):
        self.write(f"epoch {record.epoch} {record.train_loss:.6g}")
    def on_end(self, outcome):
        self.write(f"end {outcome.interrupted}")

from atomtrain.runs import Findings

def counted(page="counted.txt"):
    if not page.endswith(".txt"):
        raise ValueError("page must end in .txt")
    def evaluation(finished):
        path = finished.run.directory / page
        assert (finished.run.directory / "model.pt").exists()
        path.write_text(str({n: len(s) for n, s in finished.data.sets.items() if s is not None}))
        return Findings(["counted them"], [path], {"n": len(finished.run.train)})
    return evaluation

def last():
    return lambda finished: Findings(values={"found": list(finished.found)})

def hopeless():
    def evaluation(finished):
        raise RuntimeError("there is no hope")
    return evaluation

class Picky:
    def check(self, options):
        if "mtt::dipole" not in options.training_set[0].targets:
            raise ValueError("there is no dipole")

class Clumsy(Observer):
    def on_epoch(self, record):
        raise OSError("the disk is full")
"""

COMMANDS = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str):
    print(f"hello {name}")
"""


@pytest.fixture
def extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site"
    install(site, "extras", PLUGIN, catalog.COMPONENTS)
    (site / "extras_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "extras_parts", raising=False)
    return tmp_path


def without(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    """As if no package offered anything in this group."""
    real = catalog.entry_points

    def fewer(**asked: str) -> Iterable[EntryPoint]:
        return () if asked["group"] == group else real(**asked)

    monkeypatch.setattr(catalog, "entry_points", fewer)


def test_reader_loss_and_observer(extras: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert component("register_losses", "quartic").summary == "fourth powers"
    assert "extras_parts" not in sys.modules  # imported only when it is used
    data = {
        "systems": {"read_from": "data.xyz", "reader": "reversed"},
        "targets": {"energy": {"unit": "eV", "forces": False, "stress": False}},
        "indices": list(range(12)),
    }
    hypers = {"num_epochs": 3, "batch_size": 3, "loss": {"type": "quartic", "factor": 2.0}}
    result = train(
        extras, monkeypatch,
        architecture={"name": "tables", "training": hypers},
        training_set=data, observers={"diary": {"page": "mine.txt"}},
    )  # fmt: skip
    lines = (result.directory / "mine.txt").read_text().splitlines()
    assert lines[0] == "start 9 3 0" and lines[-1] == "end False"
    assert [line.split()[1] for line in lines[1:-1]] == ["0", "1", "2"]
    # as many structures, and so the same split, but in another order
    saved = load_checkpoint(result.checkpoint)
    assert saved["options"]["observers"] == {"diary": {"page": "mine.txt"}}
    plain = train(extras, monkeypatch, architecture={"name": "tables", "training": hypers})
    assert load_checkpoint(plain.checkpoint)["splits"] == saved["splits"]
    assert load_checkpoint(plain.checkpoint)["fingerprint"] != saved["fingerprint"]


def test_a_kind_of_target(extras: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {
        "systems": "data.xyz",
        "targets": {"mtt::way": {"key": "way", "type": "direction"}},
    }
    result = train(extras, monkeypatch, training_set=data)
    saved = load_checkpoint(result.checkpoint)
    assert saved["dataset_info"]["targets"]["mtt::way"]["kind"] == "direction"
    label = build_datasets(load_options("options.yaml")).train.labels["mtt::way"].values
    assert label.square().sum(1).tolist() == pytest.approx([1.0] * len(label))
    assert result.errors["training"]["mtt::way"]["count"] == label.numel()
    frames = ase.io.read("data.xyz", ":")
    frames[0].arrays["way"][0] = 0.0
    ase.io.write("data.xyz", frames, format="extxyz")
    with pytest.raises(AtomtrainError, match="a vector of length zero has no direction"):
        api.train("options.yaml")


def test_an_observer_that_fails_is_dropped_once(
    extras: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atomtrain")
    result = train(extras, monkeypatch, observers=["clumsy", "diary"])
    assert caplog.text.count("Clumsy failed and hears no more of this training: OSError") == 1
    assert (result.directory / "diary.txt").read_text().count("epoch") == 3


@pytest.mark.parametrize(
    ("observers", "error", "message"),
    [
        ("dairy", PluginError, r"observers.dairy: there is no observer 'dairy' .*mean 'diary'\?"),
        ("neptune", PluginError, "try 'pip install atomtrain-neptune'"),
        ({"diary": {"pages": 2}}, OptionsError, "options.yaml:.*observers.diary: .*'pages'"),
    ],
)
def test_wrong_observers_are_found_before_the_run(
    extras: Path, monkeypatch: pytest.MonkeyPatch, observers: Any, error: type[Exception],
    message: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        train(extras, monkeypatch, observers=observers)
    assert not list(extras.glob("outputs/*/*"))


def test_evaluations(
    extras: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"counted": {"page": "mine.txt"}, "hopeless": None}
    result = train(extras, monkeypatch, final_eval=asked)
    assert "counted them" in caplog.text and str(result.directory / "mine.txt") in caplog.text
    assert "final_eval: hopeless failed, nothing else is touched: RuntimeError" in caplog.text
    told = json.loads((result.directory / "evaluation.json").read_text())
    assert told["counted"] == {"n": result.errors["training"]["energy"]["count"]}
    assert told["last"] == {"found": ["counted"]}  # after those that are named
    assert told["errors"]["training"] == result.errors["training"]
    without_it = train(extras, monkeypatch, final_eval={"last": False})
    assert list(json.loads((without_it.directory / "evaluation.json").read_text())) == ["errors"]
    nothing = train(extras, monkeypatch, final_eval=False)
    assert not (nothing.directory / "evaluation.json").exists() and not nothing.errors


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"countd": {}}, PluginError, r"final_eval\.countd: .*did you mean 'counted'"),
        ({"counted": {"page": "a.md"}}, OptionsError, r"final_eval\.counted: page must end in"),
        ({"counted": {"pages": 1}}, OptionsError, r"final_eval\.counted: .*'pages'"),
        ({"picky": None}, OptionsError, r"final_eval\.picky: there is no dipole"),
    ],
)
def test_wrong_evaluations_are_found_before_the_run(
    extras: Path, monkeypatch: pytest.MonkeyPatch, asked: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(extras, monkeypatch, final_eval=asked)
    assert not list(extras.glob("outputs/*/*"))


def test_wandb_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, catalog.COMPONENTS)
    with pytest.raises(AtomtrainError, match=r"wandb: there is no .*'pip install atomtrain-wandb'"):
        train(tmp_path, monkeypatch, wandb={"project": "water"})
    with pytest.raises(AtomtrainError, match="is given among the observers as well; keep one"):
        train(tmp_path, monkeypatch, wandb={}, observers={"wandb": {}})


def test_what_a_broken_package_offers(extras: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(extras / "site", "extras-broken", "import no_such_module", catalog.COMPONENTS)
    assert component("register_observers", "diary").summary.startswith("writes down")
    with pytest.raises(PluginError, match=r"extras-broken 1.0 is left out .*no_such_module"):
        component("register_observers", "thermometer")


def test_two_packages_with_one_name(extras: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(extras / "site", "extras-again", PLUGIN, catalog.COMPONENTS)
    with pytest.raises(PluginError, match=r"offered by extras 1.0 and by extras-again 1.0"):
        component("register_losses", "quartic")


def test_commands(tmp_path: Path) -> None:
    install(tmp_path, "extra-commands", COMMANDS, catalog.COMMANDS, entry="greet",
            target="extra_commands:app")  # fmt: skip
    install(tmp_path, "broken-commands", "import no_such_module", catalog.COMMANDS, entry="fail",
            target="broken_commands:app")  # fmt: skip
    run = partial(atomtrain, tmp_path, site=tmp_path)
    listed = run("--help")
    assert "greet" in listed.stdout and "fail" in listed.stdout
    assert run("greet", "you").stdout.strip() == "hello you"
    failed = run("fail")
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert "error: the command 'fail' of broken-commands 1.0 cannot be loaded" in failed.stderr
