"""The Python API: the functions under the command line, its names, its errors, its life cycle."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.installing import install
from helpers.training import train, write_data
from typer.testing import CliRunner

import atomtrain
from atomtrain import api, evaluation
from atomtrain.cli.app import app
from atomtrain.errors import (
    AtomtrainError,
    CheckpointError,
    OptionsError,
    OutputError,
    PluginError,
)
from atomtrain.plugins import open_architecture
from atomtrain.training.checkpoint import load_checkpoint


def test_importing_costs_nothing() -> None:
    code = (
        "import atomtrain, sys; "
        "print(sorted({'torch', 'numpy', 'pydantic', 'ase'} & set(sys.modules)), dir(atomtrain))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] [")
    for name in ("train", "evaluate", "export", "load", "show"):
        assert f"'{name}'" in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        atomtrain.trian  # noqa: B018


def test_shells_can_complete_commands() -> None:
    """Those of plugins too."""
    environment = {"_ATOMTRAIN_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    for begun, word in (("ev", "eval"), ("import-m", "import-metatrain")):
        environment["COMP_WORDS"] = f"atomtrain {begun}"
        done = CliRunner().invoke(app, prog_name="atomtrain", env=environment)
        assert done.output.split() == [word]


def test_the_whole_way_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(tmp_path, monkeypatch)
    options = yaml.safe_load((tmp_path / "options.yaml").read_text())
    (tmp_path / "options.yaml").unlink()
    section = options["training_set"]
    section["systems"] = {"read_from": Path("data.xyz")}  # as a program would have it
    before = str(options)
    again = atomtrain.train(options, output=Path("again.pt"), overrides=["seed=0"])
    assert again.errors == first.errors and str(options) == before
    assert load_checkpoint(again.checkpoint)["options"]["seed"] == 0

    (result,) = atomtrain.evaluate("again.pt", section, output=None, batch_size=4)
    assert result.predictions["energy"].shape == (12, 1) and result.output is None
    assert result.errors["energy"]["rmse"] > 0
    calls = []
    systems = evaluation.systems_of
    monkeypatch.setattr(evaluation, "systems_of", lambda *a: calls.append(1) or systems(*a))
    for warm_up, n in ((True, 5), (False, 3)):
        calls.clear()
        atomtrain.evaluate("again.pt", section, output=None, batch_size=4, warm_up=warm_up)
        assert len(calls) == n
    assert len(atomtrain.evaluate("again.pt", [section, section], output=None)) == 2

    exported = atomtrain.export("again.ckpt", output="exported.pt")
    assert exported == Path("exported.pt")
    assert atomtrain.export("exported.pt", output="copy") == Path("copy.pt")
    assert Path("copy.pt").read_bytes() == exported.read_bytes()
    with pytest.raises(OutputError, match="is an exported model already; name a copy with -o"):
        atomtrain.export("exported.pt")
    with pytest.raises(CheckpointError, match=r"export the '\.ckpt' file"):
        atomtrain.export("exported.pt", output="other.ckpt")
    with pytest.raises(CheckpointError, match="which has the derivatives it has"):
        atomtrain.export("exported.pt", output="other.pt", second_derivatives=True)
    with pytest.raises(OutputError, match="a checkpoint, which has no derivatives: name a model"):
        atomtrain.export("again.ckpt", output="other.ckpt", hessian=True)
    for file in ("exported.pt", "again.ckpt"):
        assert "energy" in atomtrain.load(file).capabilities().outputs
    for file in ("exported.pt", "again.ckpt"):
        assert atomtrain.show(file)["installed"] == {"version": "1.0", "stage": "experimental"}
    more = ["architecture.training.num_epochs=4"]
    longer = atomtrain.train(options, restart="again.ckpt", overrides=more)
    assert load_checkpoint(longer.checkpoint)["trainer"]["epoch"] == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: atomtrain.train({"seed": "one"}), r"seed: expected a whole number, got 'one'"),
        (lambda: atomtrain.train({}, overrides=["seed"]), "override 'seed': expected key=value"),
        (lambda: atomtrain.evaluate("m.pt", {"targets": {}}), "^systems: is missing$"),
        (lambda: atomtrain.export("no.ckpt"), "there is no checkpoint 'no.ckpt'"),
        (lambda: atomtrain.load("no.pt"), "no.pt"),
        (lambda: atomtrain.show("no.pt"), "there is no checkpoint 'no.pt'"),
    ],
)
def test_errors_are_those_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AtomtrainError, match=message):
        call()


@pytest.mark.parametrize(
    ("command", "function", "result"),
    [
        (["train", "o.yaml", "-o", "m.pt", "-e", "e", "-r", "seed=1", "--restart", "auto"],
         "train", api.TrainingResult(None, Path("c"), Path("d"), {})),
        (["train", "o.yaml", "--dry-run", "-o", "m.pt", "-r", "seed=1", "--restart", "auto"],
         "dry_run", None),
        (["eval", "m.pt", "e.yaml", "-o", "p.xyz", "-b", "3", "--extensions-dir", "e",
          "--check-consistency", "--no-warm-up"],
         "evaluate", []),
        (["export", "owner/c", "c.ckpt", "-o", "m.pt", "-m", "a.yaml", "-e", "e", "-b", "v1",
          "--token", "t", "--second-derivatives", "--hessian", "--head", "energy/pbe"],
         "export", Path("m.pt")),
        (["show", "m.pt", "-e", "e"], "show", {"what": "exported model"}),
    ],
)  # fmt: skip
def test_the_command_line_only_calls_it(
    monkeypatch: pytest.MonkeyPatch, command: list[str], function: str, result: Any
) -> None:
    """Every argument of the function can be given on the command line, and arrives."""
    calls = []
    signature = inspect.signature(getattr(api, function))

    def record(*arguments: Any, **named: Any) -> Any:
        calls.append(signature.bind(*arguments, **named))
        return result

    monkeypatch.setattr(api, function, record)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    (call,) = calls
    assert set(call.arguments) == set(signature.parameters)
    for name, value in call.arguments.items():
        assert value != signature.parameters[name].default, name


# -- the life cycle of an architecture -----------------------------------------------------------

OLD = """
from atomtrain.contract import Deprecation
import tables_arch as base
from atomtrain.contract import ArchitectureInfo, hookimpl
from dataclasses import replace

@hookimpl
def describe_architecture():
    return replace(base.describe_architecture(), name="old", {stage})

@hookimpl
def build_model(dataset_info):
    return base.build_model(dataset_info)
"""
DEPRECATED = 'stage="deprecated", deprecation=Deprecation("0.3", "0.5", "tables")'
NOTICE = "architecture 'old' is deprecated since 0.3 and goes away in 0.5; use tables instead"


def install_old(folder: Path, stage: str) -> None:
    install(folder / "site", "tables", target="tables_arch")
    install(folder / "site", "old-dist", OLD.replace("{stage}", stage), entry="old")


def test_a_deprecated_architecture_says_so_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install_old(tmp_path, DEPRECATED)
    train(tmp_path, monkeypatch, architecture={"name": "old", "training": {"num_epochs": 1}})
    assert NOTICE in caplog.text
    for use in (lambda: api.export("model.ckpt", output="x.pt"), lambda: api.load("model.ckpt")):
        caplog.clear()
        use()
        assert NOTICE in caplog.text
    assert api.show("model.pt")["installed"]["notice"] == NOTICE
    runner = CliRunner()
    shown = " ".join(runner.invoke(app, ["show", "model.ckpt"]).output.split())
    assert "installed version 1.0, deprecated" in shown and NOTICE in shown
    listed = runner.invoke(app, ["architectures"]).output
    assert "deprecated" in listed and "(until 0.5; use tables)" in " ".join(listed.split())
    assert NOTICE in runner.invoke(app, ["architectures", "old"]).output
    schema = runner.invoke(app, ["schema"]).output
    assert "deprecated since 0.3: use tables" in schema


def test_the_stage_is_said_when_training_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atomtrain")
    train(tmp_path, monkeypatch)
    assert "tables (tables 1.0, experimental)" in caplog.text


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ('stage="deprecated"', "has stage 'deprecated' and no deprecation"),
        ('stage="stable", deprecation=Deprecation("1", "2", "x")', "'stable' and a deprecation"),
        ('stage="finished"', "'finished'; its author must give one of experimental, stable"),
    ],
)
def test_stages_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, message: str
) -> None:
    install_old(tmp_path, stage)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "old_dist", raising=False)
    with pytest.raises(PluginError, match=message):
        open_architecture("old")


def test_a_checkpoint_whose_architecture_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_old(tmp_path, 'stage="stable"')
    monkeypatch.delitem(sys.modules, "old_dist", raising=False)
    train(tmp_path, monkeypatch, architecture={"name": "old", "training": {"num_epochs": 1}})
    for name in ("old_dist.py", "old_dist-1.0.dist-info/entry_points.txt"):
        (tmp_path / "site" / name).unlink()
    with pytest.raises(PluginError, match=r"with 'old-dist 1.0': 'pip install old-dist'"):
        api.export("model.ckpt")
    assert "pip install old-dist" in api.show("model.ckpt")["installed"]["problem"]
    assert "energy" in api.load("model.pt").capabilities().outputs  # a model needs no plugin


def test_a_list_is_no_options_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.xyz")
    with pytest.raises(
        OptionsError, match=r"^the options are a list; an options file has the keys"
    ):
        atomtrain.train([{"systems": "data.xyz"}])  # type: ignore[arg-type]
