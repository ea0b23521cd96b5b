"""Faults that take minutes; ``nox -s faults`` runs them, CI does not: ``pytest tests/faults.py --kills 100 -s``.

Kills at random moments over one process, two, and a conversion: every training ends bit for bit as if nothing had been,
and no file is unreadable at any moment. One process that is stopped; a file system that is full; torchrun; ports in
use.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from helpers.alloy import options, write_crystal
from helpers.processes import Running, atomtrain, environment, ranks

from atomtrain.data import Files
from atomtrain.training.checkpoint import load_checkpoint

EPOCHS = 80
ENDS = 30.0
"""seconds within which every process has ended"""


def prepare(folder: Path, **training: object) -> Path:
    """float32, so that rounding would show."""
    folder.mkdir(exist_ok=True)
    write_crystal(folder / "crystal.xyz", 16)
    given = options()
    given["architecture"]["training"].update(
        {"num_epochs": EPOCHS, "ema_decay": 0.9, "checkpoint_interval": 1, **training}
    )
    (folder / "options.yaml").write_text(yaml.safe_dump(given))
    return folder


def start(n: int, folder: Path, *arguments: str) -> list[Running]:
    command = ("train", "options.yaml", *arguments)
    return [Running(folder, *command)] if n == 1 else ranks(n, folder, *command)


def messages(running: list[Running], code: int = 1) -> list[str]:
    """What each says, once it has ended, in time, with this code and one message."""
    end = time.monotonic() + ENDS
    found = []
    for one in running:
        assert one.wait(max(0.0, end - time.monotonic())) == code, one.output
        assert "Traceback" not in one.output, one.output
        assert one.output.count("error: ") == 1, one.output
        found.append(one.output.partition("error: ")[2].strip())
    return found


def until_there(folder: Path, pattern: str) -> None:
    end = time.monotonic() + 120
    while not any(folder.glob(pattern)):
        assert time.monotonic() < end
        time.sleep(0.02)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(folder / "model.ckpt")["model"]
    return {f"{part}.{k}": v for part in ("last", "best") for k, v in state[part].items()}


def assert_readable(folder: Path) -> int:
    """Every file that has its name; how many."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    for path in files:
        if path.suffix == ".ckpt":
            load_checkpoint(path)
        elif path.suffix == ".pt" and "unverified" not in path.name:
            torch.jit.load(path)
        elif path.name == "train.csv":
            lines = path.read_text(encoding="utf-8").splitlines()
            assert len({line.count(",") for line in lines}) <= 1, path
    return len(files)


@pytest.mark.parametrize("n", [1, 2])
def test_kills(n: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = request.config.getoption("--kills") // 2
    whole, killed = prepare(tmp_path / "whole"), prepare(tmp_path / "killed")
    start(n, prepare(tmp_path / "warm"))[0].wait(300)  # imports what takes time
    began = begun = time.monotonic()
    assert [one.wait(300) for one in start(n, whole)] == [0] * n
    duration = time.monotonic() - began
    wanted = weights(whole)
    chance = random.Random(n)
    count: Counter[str] = Counter()
    slowest = 0.0
    while count["kills"] < kills or not (killed / "model.ckpt").exists():
        running = start(n, killed, "--restart", "auto")
        last = count["kills"] >= kills
        victim = chance.choice(running)
        number = chance.choice([signal.SIGKILL, signal.SIGTERM])
        if victim.wait(600 if last else chance.uniform(0.05, 1.0) * duration) is None:
            victim.send(number)
            hit = time.monotonic()
            codes = [one.wait(ENDS) for one in running]
            slowest = max(slowest, time.monotonic() - hit)
            output = "\n".join(one.output for one in running)
            assert None not in codes, output
            assert "Traceback" not in output, output
            count.update(kills=1, **{number.name: 1, f"exit {sorted(codes)}": 1})
        codes = [one.wait(300) for one in running]
        count["files read"] += assert_readable(killed)
        count["restarts"] += any("restarting from" in one.output for one in running)
        print(f"{count['kills']}: {codes}, {count['files read']} files read", flush=True)
        for one in running:
            one.forget()
        if codes == [0] * n:
            found = weights(killed)
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
            count["ended as undisturbed"] += 1
            if not last:
                killed = prepare(tmp_path / f"killed-{count['ended as undisturbed']}")
    print(
        f"\n{n} process(es), {duration:.1f} s undisturbed: {dict(count)}; all ended within {slowest:.1f} s of a kill; "
        f"{time.monotonic() - begun:.0f} s in all"
    )


def test_kills_of_a_conversion(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A data set on disk is there whole, or not at all."""
    write_crystal(tmp_path / "some.xyz", 50)
    (tmp_path / "crystal.xyz").write_text(100 * (tmp_path / "some.xyz").read_text())
    assert Running(tmp_path, "convert", "some.xyz", "-o", "warm").wait(300) == 0
    began = time.monotonic()
    assert Running(tmp_path, "convert", "crystal.xyz", "-o", "whole").wait(300) == 0
    duration = time.monotonic() - began
    wanted = Files().open(str(tmp_path / "whole"), None, "").stored.fingerprint  # type: ignore[attr-defined]
    chance, count = random.Random(0), Counter[str]()
    for _ in range(request.config.getoption("--kills")):
        running = Running(tmp_path, "convert", "crystal.xyz", "-o", "store")
        if running.wait(chance.uniform(0.05, 1.1) * duration) is None:
            running.send(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            assert running.wait(ENDS) is not None
            count["kills"] += 1
        running.forget()
        if (tmp_path / "store").exists():
            found = Files().open(str(tmp_path / "store"), None, "").stored  # type: ignore[attr-defined]
            assert found.fingerprint == wanted and len(found) == 5000
            shutil.rmtree(tmp_path / "store")
            count["whole"] += 1
        for path in tmp_path.glob(".store.*"):
            shutil.rmtree(path)
            count["left behind, hidden"] += 1
    print(f"\nconversion, {duration:.1f} s undisturbed: {dict(count)}")


def test_one_is_stopped(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "run", num_epochs=100_000, distributed_timeout=3)
    for victim in (1, 0):
        running = start(2, folder)
        until_there(folder, "outputs/*/*/model_2.ckpt")
        began = time.monotonic()
        running[victim].send(signal.SIGSTOP)
        (said,) = messages([running[1 - victim]])
        print(f"\nrank {victim} stopped, the other after {time.monotonic() - began:.1f} s: {said}")
        assert f"rank {victim} on" in said and "gave no sign of life for" in said
        assert "go on with: atomtrain train ... --restart" in said
        running[victim].send(signal.SIGCONT)  # it finds that it is alone
        messages([running[victim]])
        shutil.rmtree(folder / "outputs")


def test_all_are_suspended_and_go_on(tmp_path: Path) -> None:
    """As schedulers do with a job that has to make room: nobody is late."""
    folder = prepare(tmp_path / "run", distributed_timeout=2)
    running = start(2, folder)
    until_there(folder, "outputs/*/*/model_2.ckpt")
    for one in running:
        one.send(signal.SIGSTOP)
    time.sleep(6)
    for one in running:
        one.send(signal.SIGCONT)
    assert [one.wait(120) for one in running] == [0, 0], running[0].output


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts")
def test_a_file_system_that_is_full(tmp_path: Path) -> None:
    """A small tmpfs: filled while the training runs, emptied, filled again for the end."""
    folder = prepare(tmp_path / "run", num_epochs=100_000, log_interval=1)
    outputs = folder / "outputs"
    outputs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(outputs)])
    if mounted.returncode:
        pytest.skip("cannot mount here")
    filler = outputs / "filler"
    try:
        (running,) = start(1, folder)
        until_there(folder, "outputs/*/*/model_2.ckpt")
        fill(filler)
        end = time.monotonic() + 60
        refused = r"': No space left on device; the training goes on"
        while not all(
            re.search(name + refused, running.output)
            for name in (r"model_\d+\.ckpt", r"train\.csv", r"train\.log")
        ):
            assert time.monotonic() < end, running.output
            time.sleep(0.02)
        for path in outputs.glob("*/*/model_*.ckpt"):
            path.unlink()
        filler.unlink()
        end = time.monotonic() + 30
        while "train.csv' is written again" not in running.output:
            assert time.monotonic() < end, running.output
            time.sleep(0.02)
        running.send(signal.SIGTERM)
        code = running.wait(ENDS)
        assert code in (130, 1), running.output
        (log,) = outputs.glob("*/*/train.log")
        rows = log.with_name("train.csv").read_text().splitlines()[1:]
        numbers = [int(row.split(",")[0]) for row in rows]
        assert numbers == list(range(len(numbers)))
        print(f"\n{len(numbers)} rows, none missing, exit {code}")
        shutil.rmtree(log.parent)
        (running,) = start(1, folder, "-r", "architecture.training.checkpoint_interval=0")
        until_there(folder, "outputs/*/*/train.csv")
        fill(filler)
        running.send(signal.SIGTERM)
        (said,) = messages([running])
        assert "No space left on device" in said
        print(said)
        filler.unlink()
        shutil.rmtree(next(outputs.glob("*/*")))
        fill(filler)
        (said,) = messages(start(1, folder))
        print(said)
        assert "No space left on device" in said
    finally:
        subprocess.run(["umount", str(outputs)])


def fill(file: Path) -> None:
    with open(file, "ab", buffering=0) as opened:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    opened.write(b"x" * size)
            except OSError:
                pass


def test_a_port_in_use(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "run")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        slurm = {
            "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7",
            "SLURM_NODELIST": "localhost", "PATH": "/nowhere",
        }  # fmt: skip
        option = ("-r", f"architecture.training.distributed_port={port}")
        first, second = messages(
            [
                Running(folder, "train", "options.yaml", *option, **slurm, SLURM_PROCID=str(k))
                for k in range(2)
            ]
        )
    print(f"\n{first}\n{second}")
    assert f"port {port}" in first and "Address already in use" in first
    assert port in second and "does not answer as one" in second


def test_torchrun(tmp_path: Path) -> None:
    """Its own store has the port; a rank that is killed, and a folder that only one sees."""
    folder = prepare(tmp_path / "run", num_epochs=100_000)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
              "-m", "atomtrain", "train", "options.yaml"]  # fmt: skip
    with open(folder / "said.txt", "w") as said:
        process = subprocess.Popen(launch, cwd=folder, env=environment(), stdout=said, stderr=said)
    until_there(folder, "outputs/*/*/model_2.ckpt")
    victims = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    began = time.monotonic()
    os.kill(int(victims[1]), signal.SIGKILL)
    assert process.wait(60) != 0
    text = (folder / "said.txt").read_text()
    errors = re.findall(r"^error: .*", text, re.MULTILINE)
    print(f"\nafter {time.monotonic() - began:.1f} s: {errors}")
    assert len(errors) == 1 and f"(process {victims[1]}) is gone" in errors[0]


def test_two_trainings_at_one_port(tmp_path: Path) -> None:
    """The second ends and leaves the first alone."""
    folders = [prepare(tmp_path / name, num_epochs=60) for name in ("a", "b")]
    env = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_NODELIST": "localhost"}
    option = ("-r", "architecture.training.distributed_port=31007")
    running = {}
    for folder, job in zip(folders, "12", strict=True):
        running[job] = [
            Running(
                folder,
                "train",
                "options.yaml",
                *option,
                **env,
                SLURM_JOB_ID=job,
                SLURM_PROCID=str(k),
            )
            for k in range(2)
        ]
        if job == "1":
            until_there(folder, "outputs/*/*/model_2.ckpt")
    first, second = messages(running["2"])
    print(f"\n{first}\n{second}")
    assert "Address already in use" in first and "another training" in second
    assert [one.wait(300) for one in running["1"]] == [0, 0]


def test_killed_while_the_other_prepares(tmp_path: Path) -> None:
    """At any moment of the start, whoever is killed: the other ends in time."""
    folder = prepare(tmp_path / "run", distributed_timeout=5)  # also for one that never came
    slowest = 0.0
    for k, victim in itertools.product(range(6), (0, 1)):
        running = start(2, folder)
        time.sleep(0.15 * k)
        running[victim].send(signal.SIGKILL)
        began = time.monotonic()
        (said,) = messages([running[1 - victim]])
        slowest = max(slowest, time.monotonic() - began)
        print(f"{0.15 * k:.2f} s, rank {victim}: {said[:90]}")
    print(f"slowest {slowest:.1f} s")


def test_variables_of_launchers_that_are_wrong(tmp_path: Path) -> None:
    """Each in the command itself; more of them in core/tests/training/test_launcher.py."""
    folder = prepare(tmp_path / "run")
    for env in (
        {"SLURM_NTASKS": "two", "SLURM_STEP_ID": "0"},
        {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "2"},
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": "0"},
    ):
        done = atomtrain(folder, "train", "options.yaml", **env)
        assert done.returncode == 1 and done.stderr.count("error: ") == 1
        assert "Traceback" not in done.stderr
        print(done.stderr.strip())
