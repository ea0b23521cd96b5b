"""What happens to a process, a disk or a folder: one message that names cause and remedy, and nothing is lost.

What takes longer is in ``faults.py``, which ``nox -s faults`` runs.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.alloy import options, write_crystal
from helpers.processes import Running, ranks
from helpers.training import train

from atomtrain import api
from atomtrain.errors import OutputError
from atomtrain.files import Appending
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.observers import EpochRecord, Observer

MESSAGE = re.compile(r"^error: (.*)", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A training that goes on until something happens, with a checkpoint every epoch."""
    write_crystal(tmp_path / "crystal.xyz", 12)
    given = options()
    given["architecture"]["training"].update(
        num_epochs=100_000, checkpoint_interval=1, log_interval=1000
    )
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(given))
    return tmp_path


def ended(running: list[Running], among: float = 30.0) -> list[str]:
    """The one message of each process; all have ended with an error within so many seconds."""
    until = time.monotonic() + among
    try:
        for one in running:
            code = one.wait(max(0.0, until - time.monotonic()))
            assert code == 1, one.output
    finally:
        for one in running:
            one.send(signal.SIGKILL)
    found = []
    for one in running:
        assert "Traceback" not in one.output, one.output
        assert one.output.count("error: ") == 1, one.output
        (message,) = MESSAGE.findall(one.output)
        found.append(message.strip())
    return found


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_is_killed(folder: Path, victim: int) -> None:
    running = ranks(2, folder, "train", "options.yaml")
    until(lambda: any(folder.glob("outputs/*/*/model_2.ckpt")))
    running[victim].send(signal.SIGKILL)
    assert running[victim].wait(10) == -signal.SIGKILL
    (message,) = ended([running[1 - victim]])
    assert f"rank {victim} on" in message and f"(process {running[victim].pid}) is gone" in message
    (path,) = re.findall(r"last checkpoint is '(.*?)'", message)
    assert (folder / path).is_file() and f"--restart {path}" in message
    if victim == 1:
        (said,) = folder.glob("outputs/*/*/train.log")
        assert "is gone: it was killed" in said.read_text()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (["-r", "seed=2"], "do not have the same options: seed is 1 on rank 0 on"),
        (["-r", "training_set.systems.read_from=none.xyz", "-r", "seed=1"], "none.xyz"),
        (["-r", "architecture.nam=x"], "unknown key"),
    ],
)
def test_options_differ(folder: Path, second: list[str], message: str) -> None:
    for said in ended(ranks(2, folder, "train", "options.yaml", each=[[], second])):
        assert message in said


def test_data_differ_or_are_not_there(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two hosts that do not see the same files."""
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "options.yaml", other)
    first, second = ended(ranks(2, folder, "train", "options.yaml", folders=[folder, other]))
    assert re.search(r"rank 1 on .* failed: .*crystal\.xyz", first)
    assert "crystal.xyz" in second and "failed" not in second
    write_crystal(other / "crystal.xyz", 13)
    for said in ended(ranks(2, folder, "train", "options.yaml", folders=[folder, other])):
        assert "do not have the same data: the training set is" in said or "validation" in said
        assert "all hosts see the same" in said


class After(Observer):
    """Does something once, after an epoch."""

    def __init__(self, epoch: int, what: Callable[[], None]) -> None:
        self.epoch, self.what = epoch, what

    def on_epoch(self, record: EpochRecord) -> None:
        if record.epoch == self.epoch:
            self.what()


def train_meanwhile(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *observers: Observer,
    epochs: int = 6,
    **more: Any,
) -> api.TrainingResult:
    """Six epochs of a model of tables, watched, with a checkpoint after each two."""
    module = importlib.import_module("atomtrain.runs.plan")
    monkeypatch.setattr(module, "_observers", lambda options: list(observers))
    training = {"num_epochs": epochs, "batch_size": 3, "checkpoint_interval": 2}
    return train(folder, monkeypatch, architecture={"name": "tables", "training": training}, **more)


def run_of(folder: Path) -> Path:
    (found,) = folder.glob("outputs/*/*")
    return found


def full(monkeypatch: pytest.MonkeyPatch, names: str) -> Callable[[], None]:
    """Something that lets no file whose name has this in it be written any more."""
    real = builtins.open

    def refusing(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if re.search(names, str(file)) and set(mode) & set("wax"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return real(file, mode, *args, **kwargs)

    return lambda: monkeypatch.setattr(builtins, "open", refusing)


def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training goes on, says so at each interval, and all that was to be written follows when there is room."""
    with pytest.MonkeyPatch.context() as patch:
        fill, clear = full(patch, r"train\.(csv|log)$|\.ckpt$"), patch.undo
        # pathlib has an open of its own
        kinds = [
            After(0, fill),
            After(0, lambda: patch.setattr(io, "open", builtins.open)),
            After(4, clear),
        ]
        done = train_meanwhile(tmp_path, monkeypatch, *kinds)
    said = capsys.readouterr().out
    for name in ("model_2.ckpt", "model_4.ckpt"):
        assert re.search(
            rf"{name}': No space left on device; the training goes on without this", said
        )
    assert (done.directory / "model_6.ckpt").is_file() and done.checkpoint.is_file()
    rows = (done.directory / "train.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", *"012345"]
    log = (done.directory / "train.log").read_text()
    assert said.count("train.csv': No space left on device; the training goes on, and what is") == 1
    assert said.count("train.csv' is written again") == 1
    for line in said.splitlines():
        assert line in log or "written again" in line, line


def test_a_disk_that_stays_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last checkpoint is an error; it says from where to go on."""
    with pytest.MonkeyPatch.context() as patch:
        fill = full(patch, r"\.ckpt$")
        kinds = [After(2, fill), After(2, lambda: patch.setattr(io, "open", builtins.open))]
        with pytest.raises(OutputError) as caught:
            train_meanwhile(tmp_path, monkeypatch, *kinds)
    run = run_of(tmp_path).relative_to(tmp_path)
    assert str(caught.value) == (
        f"cannot write '{run}/model.ckpt': No space left on device. The last checkpoint is '{run}/model_2.ckpt'; "
        f"go on with: atomtrain train ... --restart {run}/model_2.ckpt"
    )
    assert "ended by OutputError" in (run / "train.log").read_text()


def test_a_file_that_grows_keeps_no_half_line(tmp_path: Path) -> None:
    file = Appending(tmp_path / "x.csv")
    assert file.begins and file.add("first\n") == "" and not file.begins
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # within the second line
    try:
        said = file.add("second line\n"), file.add("third\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said == ("File too large", "File too large")
    assert file.path.read_text() == "first\n" and not file.begins
    assert file.add("fourth\n") == ""
    assert file.path.read_text() == "first\nsecond line\nthird\nfourth\n"


def test_a_folder_that_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One error; what there is of the training is in a folder made anew, and ends as if nothing had been."""
    monkeypatch.setattr("atomtrain.training.session.LOOK", 0.0)
    whole = train_meanwhile(tmp_path, monkeypatch)
    shutil.rmtree("outputs")
    with pytest.raises(OutputError) as caught:
        train_meanwhile(tmp_path, monkeypatch, After(3, lambda: shutil.rmtree("outputs")))
    run = run_of(tmp_path).relative_to(tmp_path)
    assert f"the run's folder '{run}' was removed during the training" in str(caught.value)
    assert f"go on with: atomtrain train ... --restart {run}/interrupted.ckpt" in str(caught.value)
    first = load_checkpoint(whole.checkpoint)
    again = train_meanwhile(tmp_path, monkeypatch, restart=str(run / "interrupted.ckpt"))
    second = load_checkpoint(again.checkpoint)
    for name, tensor in first["model"]["last"].items():
        assert torch.equal(tensor, second["model"]["last"][name])


def test_a_folder_that_cannot_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atomtrain.training.session.LOOK", 0.0)

    def remove() -> None:
        shutil.rmtree("outputs")
        Path("outputs").write_text("")

    with pytest.raises(OutputError, match=r"was removed .* and it cannot be made again: "):
        train_meanwhile(tmp_path, monkeypatch, After(3, remove))


def test_a_disk_error_anywhere_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("atomtrain.cli.app")

    def fails() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    monkeypatch.setattr(module, "app", fails)
    monkeypatch.delenv("ATOMTRAIN_DEBUG", raising=False)
    with pytest.raises(SystemExit) as caught:
        module.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: 'somewhere': No space left on device\n"
