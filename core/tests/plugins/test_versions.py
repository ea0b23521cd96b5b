"""A plugin through three versions and a new name: its checkpoints go on loading."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import grown_arch
import pytest
import torch
from helpers.installing import install
from helpers.training import write_data

from atomtrain import api
from atomtrain.errors import CheckpointError, OutputError
from atomtrain.plugins import open_architecture
from atomtrain.plugins.restore import restore
from atomtrain.training.checkpoint import load_checkpoint, save_checkpoint
from atomtrain_testing import Outcome, Subject, run_check, write_golden

SOURCE = Path(grown_arch.__file__).read_text()


def release(folder: Path, monkeypatch: pytest.MonkeyPatch, version: int, **changes: str) -> Subject:
    """Install this version of the plugin, and no other; from version 3 on it is 'grown-up'."""
    name = "grown" if version < 3 else "grown-up"
    source = SOURCE.replace("VERSION = 3", f"VERSION = {version}")
    source = source.replace('NAME = "grown-up"', f'NAME = "{name}"')
    for old, new in changes.items():
        source = source.replace(getattr(OLD, old), new)
    site = folder / f"site{len(list(folder.iterdir()))}"
    install(site, name, source)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, name.replace("-", "_"), raising=False)
    return Subject(name, golden=folder / "golden")


class OLD:
    """Pieces of the plugin's source that releases with a fault replace."""

    rename = 'state["factors"] = state.pop("strength")'
    reshape = 'state["factors"] = state["factors"].unsqueeze(1)'


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with golden checkpoints of versions 1 and 2, and with version 3 released."""
    for version in (1, 2):
        with monkeypatch.context() as patch:
            subject = release(tmp_path, patch, version)
            path = write_golden(subject, tmp_path / "golden")
            assert path.name == f"v{version}-{version}.ckpt"
    return tmp_path


def golden(subject: Subject) -> Outcome:
    """The outcome of the check, as if the others had passed."""
    from atomtrain_testing import CHECKS

    for name in ("description", "builds", "checkpoints"):
        subject.outcomes[name] = Outcome(CHECKS[name], "passed")
    return run_check(subject, "golden")


def test_versions_1_to_3(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = release(history, monkeypatch, 3)
    assert "no golden checkpoint holds version 3 of the model" in golden(subject).message
    assert write_golden(subject, history / "golden").name == "v3-2.ckpt"
    subject = Subject("grown-up", golden=history / "golden")
    outcome = golden(subject)
    assert outcome.verdict == "passed", outcome.message
    with pytest.raises(OutputError, match="golden checkpoint is written once for a version"):
        write_golden(subject, history / "golden")

    assert open_architecture("grown").info.name == "grown-up"  # by its alias
    old = load_checkpoint(history / "golden" / "v1-1.ckpt")
    assert old["architecture"]["name"] == "grown" and "strength" in old["model"]["last"]
    predictor = restore(old, "restart").predictor
    factors = predictor.model.state_dict()["factors"]
    assert torch.equal(factors, old["model"]["last"]["strength"].unsqueeze(1))


def test_a_checkpoint_from_the_future(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(history, monkeypatch, 1)
    with pytest.raises(
        CheckpointError, match=r"version 2 of the model .* up to 1; install a newer"
    ):
        restore(load_checkpoint(history / "golden" / "v2-2.ckpt"), "export")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rename": "pass"}, "failed upgrading version 2 of its model to 3: KeyError: 'factors'"),
        ({"reshape": "pass"}, "the weights in the checkpoint do not fit the model"),
        (
            {"rename": 'state["factors"] = 2 * state.pop("strength")'},
            "'v1-1.ckpt' (model 1, trainer 1): 'energy': differs by",
        ),
        ({"rename": "return None"}, "returned nothing for the step from version 1"),
    ],
)
def test_upgrades_that_are_wrong(
    history: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], message: str
) -> None:
    outcome = golden(release(history, monkeypatch, 3, **changes))
    assert outcome.verdict == "failed"
    assert message in outcome.message


def test_a_file_that_is_not_golden(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = release(history, monkeypatch, 3)
    checkpoint = load_checkpoint(history / "golden" / "v1-1.ckpt")
    del checkpoint["golden"]
    save_checkpoint(checkpoint, history / "golden" / "v1-1.ckpt")
    assert "was not written by 'atomtrain check --write-golden'" in golden(subject).message


# -- a training goes on where an earlier version stopped -------------------------------------------


def options(hypers: dict[str, float], **training: Any) -> dict[str, Any]:
    target = {"unit": "eV", "forces": False, "stress": False}
    return {
        "architecture": {
            "name": "grown",
            "model": hypers,
            "training": {"num_epochs": 2, "batch_size": 3, **training},
        },
        "training_set": {"systems": "data.xyz", "targets": {"energy": target}},
        "validation_set": 0.25,
    }


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``old.ckpt`` and the outputs of a training by version 1; none is installed."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.xyz")
    with monkeypatch.context() as patch:
        release(tmp_path, patch, 1)
        api.train(options({"size": 0.5}), output="old.pt")
    return tmp_path


def as_written(path: Path) -> dict[str, Any]:
    """A checkpoint of which identity, options and hypers say the same."""
    found = load_checkpoint(path)
    added = {"offset": 0.0} if found["architecture"]["model_version"] == 3 else {}
    assert found["hypers"]["model"] == {"amplitude": 0.5, **added}
    return found


@pytest.mark.parametrize("restart", ["old.ckpt", "auto"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_restart_after_a_hyper_was_renamed(
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    restart: str,
    version: int,
) -> None:
    caplog.set_level(logging.INFO, "atomtrain")
    release(trained, monkeypatch, version)
    result = api.train(options({"amplitude": 0.5}, num_epochs=3), restart=restart)
    assert "restarting from" in caplog.text
    found = as_written(result.checkpoint)
    assert found["architecture"]["model_version"] == version
    assert found["options"]["architecture"]["model"] == found["hypers"]["model"]
    assert api.export("model.ckpt", output="again.pt").exists()


def test_a_restart_with_another_value(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(trained, monkeypatch, 2)
    with pytest.raises(CheckpointError, match=r"model.amplitude: 0.5 in the checkpoint, 0.6 in"):
        api.train(options({"amplitude": 0.6}), restart="old.ckpt")


@pytest.mark.parametrize("method", ["full", "heads", "encoder"])
def test_a_finetune_after_a_hyper_was_renamed(
    trained: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    release(trained, monkeypatch, 2)
    finetune = {"read_from": "old.ckpt", "method": method}
    result = api.train(options({}, finetune=finetune), output="tuned.pt")
    found = as_written(result.checkpoint)
    assert found["architecture"]["model_version"] == 2
    assert api.export("tuned.ckpt", output="again.pt").exists()
    for file in ("tuned.ckpt", "again.pt"):
        assert api.show(file)["hypers"]["model"] == {"amplitude": 0.5}
    again = {"read_from": "tuned.ckpt", "method": method}
    as_written(api.train(options({}, finetune=again)).checkpoint)


def test_an_old_checkpoint_is_exported(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(trained, monkeypatch, 3)
    path = api.export("old.ckpt", output="new.pt")
    # Version 3 added a hyper: what is exported has its default.
    assert api.show(path)["hypers"]["model"] == {"amplitude": 0.5, "offset": 0.0}
