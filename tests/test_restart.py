"""Killed, interrupted, restarted, fine-tuned, trained by two: what must not be lost or change."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import pytest
import torch
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.alloy import options, write_crystal
from helpers.processes import Running, atomtrain, together

from atomtrain import api
from atomtrain.errors import CheckpointError
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain_testing.subject import environment

EPOCHS = 40


COMMAND = ("train", "options.yaml", "-r", "final_eval.report=false")


def start(folder: Path, *arguments: str) -> Running:
    """A training, but for the report at its end, with two threads."""
    return Running(folder, *COMMAND, *arguments, OMP_NUM_THREADS="2")


def as_users_start(folder: Path) -> subprocess.Popen[str]:
    """The same in an interpreter of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "atomtrain", *COMMAND],
        cwd=folder,
        env=environment(OMP_NUM_THREADS="2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def first_epoch(process: Running) -> None:
    """Wait for it."""
    until = time.monotonic() + 120
    while "Epoch" not in process.output:
        assert process.poll() is None and time.monotonic() < until, process.output
        time.sleep(0.02)


def prepare(folder: Path, **training: object) -> None:
    """float32, so that rounding would show."""
    write_crystal(folder / "crystal.xyz", 24)
    given = options()
    given["architecture"]["training"].update({"num_epochs": EPOCHS, "ema_decay": 0.9, **training})
    (folder / "options.yaml").write_text(yaml.safe_dump(given))


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = load_checkpoint(a)["model"], load_checkpoint(b)["model"]
    for part in ("last", "best"):
        for name, tensor in first[part].items():
            assert torch.equal(tensor, second[part][name]), (part, name)


def test_killed_and_restarted(tmp_path: Path) -> None:
    """SIGKILL at four random moments; weights end equal bit for bit, no checkpoint is ever broken."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        prepare(folder)
    began = time.monotonic()
    process = start(whole)
    assert process.wait() == 0, process.output
    duration = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(4):
        process = start(killed, "--restart", "auto")
        if process.wait(moments.uniform(0.2, 1.0) * duration) is None:
            process.kill()
        process.wait()
        for path in killed.rglob("*.ckpt"):
            load_checkpoint(path)
    process = start(killed, "--restart", "auto")
    assert process.wait() == 0, process.output
    assert "restarting from" in process.output
    assert_same_weights(whole / "model.ckpt", killed / "model.ckpt")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly(tmp_path: Path, number: int) -> None:
    """A checkpoint and a way to go on; no model, nothing half written."""
    stopped = tmp_path
    prepare(stopped, num_epochs=300, checkpoint_interval=0)
    process = as_users_start(stopped)
    assert process.stdout is not None
    for line in process.stdout:
        if "Epoch" in line:
            break
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "stopped by a signal; go on with: atomtrain train ... --restart" in out
    (path,) = stopped.rglob("interrupted.ckpt")
    state = load_checkpoint(path)["trainer"]
    assert state["epoch"] + state["step_in_epoch"] > 0
    assert not (stopped / "model.pt").exists()
    assert not [p for p in stopped.rglob("*") if p.name.endswith(".tmp")]


def test_interrupted_in_the_middle_ends_the_same(tmp_path: Path) -> None:
    """A run stopped within an epoch and restarted ends bit for bit as if nothing had been, also between the batches
    of a step: it stops behind the step."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
        prepare(folder, num_epochs=40, checkpoint_interval=0, batch_size=3, accumulate=2)
    process = start(whole)
    assert process.wait() == 0, process.output
    process = start(stopped)
    first_epoch(process)
    process.send(signal.SIGTERM)
    assert process.wait(60) == 130, process.output
    (path,) = stopped.rglob("interrupted.ckpt")
    process = start(stopped, "--restart", str(path))
    assert process.wait() == 0, process.output
    assert_same_weights(whole / "model.ckpt", stopped / "model.ckpt")


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Two processes under torchrun's variables, float64: what one gives, up to rounding; two batches make a step."""
    results = {}
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        write_crystal(folder / "crystal.xyz", 23)  # an odd number: shares differ in size
        given = options(base_precision=64)
        given["architecture"]["training"].update({"batch_size": 3, "accumulate": 2})
        (folder / "options.yaml").write_text(yaml.safe_dump(given))
        together(folder, n, "train", "options.yaml")
        assert len(list(folder.glob("outputs/*/*"))) == 1
        results[n] = load_checkpoint(folder / "model.ckpt")
    for name, tensor in results[1]["model"]["last"].items():
        torch.testing.assert_close(results[2]["model"]["last"][name], tensor, rtol=1e-7, atol=1e-9)
    one, two = (results[n]["metrics"] for n in (1, 2))
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-8)
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-8)


def test_copies_are_refused(workplace: Path) -> None:
    done = atomtrain(
        workplace, "train", "options.yaml", "-r", "architecture.training.distributed=false",
        SLURM_NTASKS="2", SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_STEP_ID="0",
    )  # fmt: skip
    assert done.returncode == 1
    assert "each would train a copy of the same model" in done.stderr
    done = atomtrain(
        workplace, "train", "options.yaml", "-r", "architecture.training.distributed=true"
    )
    assert done.returncode == 1 and "only one process was started" in done.stderr


@pytest.mark.parametrize("method", ["full", "heads", "encoder"])
def test_finetune(trained: Path, workplace: Path, method: str) -> None:
    """The same target with another reference energy starts from the trained forces."""
    given = yaml.safe_load((workplace / "options.yaml").read_text())
    given["architecture"]["training"].update(
        {"num_epochs": 1, "learning_rate": 1e-9, "finetune": {
            "read_from": str(trained / "model.ckpt"), "method": method}}
    )  # fmt: skip
    (workplace / "options.yaml").write_text(yaml.safe_dump(given))
    done = atomtrain(workplace, "train", "options.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    source, tuned = (load_checkpoint(f / "model.ckpt") for f in (trained, workplace))
    best, last = source["model"]["best"], tuned["model"]["last"]
    encoder = [n for n in best if not n.startswith("heads.")]
    for name in encoder:
        torch.testing.assert_close(last[name], best[name], rtol=0, atol=1e-6)
        if method == "heads":
            assert torch.equal(last[name], best[name])
    heads = [n for n in best if n.startswith("heads.energy.") and best[n].numel()]
    assert heads
    for name in heads:
        assert torch.allclose(last[name], best[name], atol=1e-6) == (method != "encoder")


def test_finetune_on_a_new_target_with_its_head(trained: Path, workplace: Path) -> None:
    given = yaml.safe_load((workplace / "options.yaml").read_text())
    energy = given["training_set"]["targets"].pop("energy")
    given["training_set"]["targets"]["energy/emt"] = energy
    given["architecture"]["training"].update(
        {"num_epochs": 1, "learning_rate": 1e-9, "finetune": {
            "read_from": str(trained / "model.ckpt"), "inherit_heads": {"energy/emt": "energy"}}}
    )  # fmt: skip
    (workplace / "options.yaml").write_text(yaml.safe_dump(given))
    done = atomtrain(workplace, "train", "options.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    source, tuned = (load_checkpoint(f / "model.ckpt") for f in (trained, workplace))
    best, last = source["model"]["best"], tuned["model"]["last"]
    heads = [n for n in best if n.startswith("heads.energy.")]
    assert heads
    for name in heads:
        new = name.replace("heads.energy.", "heads.energy/emt.")
        torch.testing.assert_close(last[new], best[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_restart_takes_other_settings_of_the_optimiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """They are those of the options, not those that the optimiser's state was saved with."""
    monkeypatch.chdir(tmp_path)
    write_crystal(tmp_path / "crystal.xyz", 8)
    given = options()
    training = given["architecture"]["training"]
    training |= {"num_epochs": 4, "checkpoint_interval": 2, "optimizer": optimizer}
    middle = api.train(given, output="whole.pt").directory / "model_2.ckpt"
    for name, decay in (("same.pt", 0.0), ("other.pt", 10.0)):
        training["weight_decay"] = decay
        api.train(given, output=name, restart=middle)
    whole, same, other = (
        load_checkpoint(f"{n}.ckpt")["model"]["last"] for n in ("whole", "same", "other")
    )
    assert all(torch.equal(same[n], whole[n]) for n in whole)
    assert any(not torch.equal(other[n], whole[n]) for n in whole)


def test_restart_refuses_another_model(trained: Path, workplace: Path) -> None:
    done = atomtrain(
        workplace, "train", "options.yaml", "--restart", str(trained / "model.ckpt"),
        "-r", "architecture.model.soap.max_radial=2",
    )  # fmt: skip
    assert done.returncode == 1
    assert "model.soap.max_radial: 3 in the checkpoint, 2 in the options" in done.stderr


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    prepare(tmp_path, num_epochs=3)
    process = start(tmp_path)
    process.wait(120)
    newest = max(tmp_path.glob("outputs/*/*/model.ckpt"))
    newest.write_bytes(newest.read_bytes()[:500])
    with pytest.raises(CheckpointError):
        load_checkpoint(newest)
    process = start(tmp_path, "--restart", "auto")
    assert process.wait(120) == 0, process.output
    assert "not going on from" in process.output and "model_3.ckpt" in process.output


def tune(
    workplace: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, **training: Any
) -> dict[str, Any]:
    """Options of a fine-tuning in ``workplace``, which says nothing of the model: the checkpoint does."""
    monkeypatch.chdir(workplace)
    shutil.copy(trained / "model.ckpt", "base.ckpt")
    given = options(base_precision=64)
    del given["architecture"]["model"]
    given["architecture"]["training"].update(
        {
            "num_epochs": 4,
            "checkpoint_interval": 2,
            "finetune": {"read_from": "base.ckpt"},
            **training,
        }
    )
    return given


def write_copper(n: int) -> None:
    """``crystal.xyz`` in which all atoms are copper."""
    frames = write_crystal(Path("crystal.xyz"), n)
    for atoms in frames:
        results = dict(atoms.calc.results)
        atoms.numbers[:] = 29
        atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write("crystal.xyz", frames, format="extxyz")


@pytest.mark.parametrize("how", ["file", "auto"])
@pytest.mark.parametrize(
    "training",
    [{}, {"atomic_baseline": "base.ckpt", "fixed_scaling_weights": "base.ckpt"},
     {"finetune": {"read_from": "base.ckpt", "method": "heads"}}],
)  # fmt: skip
def test_a_finetuning_goes_on_without_the_file_it_began_with(
    trained: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    training: dict[str, Any],
    how: str,
) -> None:
    given = tune(workplace, trained, monkeypatch, **training)
    whole = api.train(given, output="whole.pt")
    Path("base.ckpt").unlink()
    for later in ("model_4.ckpt", "model.ckpt"):
        (whole.directory / later).unlink()
    restart = "auto" if how == "auto" else whole.directory / "model_2.ckpt"
    again = api.train(given, output="again.pt", restart=restart)
    assert (
        f"restarting from '{whole.directory / 'model_2.ckpt'}'"
        in (again.directory / "train.log").read_text()
    )
    assert_same_weights(Path("whole.ckpt"), Path("again.ckpt"))


def test_a_finetuning_goes_on_with_the_head_it_inherited(
    trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherit = {"read_from": "base.ckpt", "inherit_heads": {"energy/emt": "energy"}}
    given = tune(workplace, trained, monkeypatch, finetune=inherit)
    given["training_set"]["targets"]["energy/emt"] = given["training_set"]["targets"].pop("energy")
    whole = api.train(given, output="whole.pt")
    Path("base.ckpt").unlink()
    api.train(given, output="again.pt", restart=whole.directory / "model_2.ckpt")
    assert_same_weights(Path("whole.ckpt"), Path("again.ckpt"))


def test_a_finetuning_on_fewer_elements_goes_on(
    trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model keeps the elements that the data do not have."""
    given = tune(workplace, trained, monkeypatch)
    write_copper(12)
    whole = api.train(given, output="whole.pt")
    api.train(given, output="again.pt", restart=whole.directory / "model_2.ckpt")
    assert_same_weights(Path("whole.ckpt"), Path("again.ckpt"))
    assert load_checkpoint("again.ckpt")["dataset_info"]["atomic_types"] == [29, 79]


def test_a_training_goes_on_on_fewer_elements(
    trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    write_copper(12)
    given = options(base_precision=64)
    given["architecture"]["training"]["num_epochs"] = 8
    done = api.train(given, output="again.pt", restart=trained / "model.ckpt")
    assert load_checkpoint("again.ckpt")["dataset_info"]["atomic_types"] == [29, 79]
    said = (done.directory / "train.log").read_text()
    assert "the model keeps what it knows of Au, which the data do not have" in said
    assert "going on after epoch 6 of 8" in said
    given["training_set"]["targets"]["mtt::other"] = {"key": "energy"}
    with pytest.raises(CheckpointError, match=r"on other targets, or on more elements, .*Cu, Au"):
        api.train(given, restart=trained / "model.ckpt")


@pytest.mark.parametrize("restart", [None, "auto"])
@pytest.mark.parametrize("key", ["finetune.read_from", "atomic_baseline"])
def test_a_training_that_begins_needs_the_files_it_names(
    trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, restart: str | None, key: str
) -> None:
    """So does one of which there is nothing to restart; and it says so before data are read."""
    given = tune(workplace, trained, monkeypatch, atomic_baseline="base.ckpt")
    if key == "atomic_baseline":
        del given["architecture"]["training"]["finetune"]
    else:
        del given["architecture"]["training"]["atomic_baseline"]
    for file in ("base.ckpt", "crystal.xyz"):
        Path(file).unlink()
    Path("options.yaml").write_text(yaml.safe_dump(given))
    message = rf"options.yaml:\d+: architecture.training.{key}: there is no checkpoint 'base.ckpt'"
    with pytest.raises(CheckpointError, match=message):
        api.train("options.yaml", restart=restart)
    assert not list(Path("outputs").glob("*/*"))
