"""One training as a process of its own: started, watched, ended; what its folder says of it afterwards."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "atomtrain", "train", "options.yaml")
"""what is run in the folder of a run"""
LOG = "run.log"
"""what the command prints"""
LOOK = 0.2
"""seconds between looks at a training"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: ``error`` in a line, empty where there is none; MB of memory at the most, if known."""

    error: str
    seconds: float
    cpu_seconds: float
    peak_mb: float | None


@dataclass(frozen=True)
class Logged:
    """What ``train.csv`` says: seconds of each epoch or other stage, in order; how many of them are epochs."""

    seconds: list[float]
    epochs: int


def train(folder: Path, enough: Callable[[Logged], bool] = lambda _: False) -> Ended:
    """Train in a folder with ``options.yaml``, going on from what an earlier training left there.

    ``enough`` is asked every moment, and ends the training with nothing kept. KeyboardInterrupt asks the training to
    stop, waits for it, and is raised again; a second one kills it.
    """
    again = ("--restart", "auto") if interrupted(folder) else ()
    began, before = time.monotonic(), _cpu_seconds()
    with open(folder / LOG, "ab") as log:
        start = log.tell()
        # a session of its own: Ctrl-C reaches it through us, and once
        process = subprocess.Popen(
            [*COMMAND, *again],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        memory, stopped = _Memory(process), False
        try:
            while not memory.ended():
                time.sleep(LOOK)
                if enough(logged(folder)):
                    stopped = True
                    _kill(process)
        except KeyboardInterrupt:
            _stop(process, memory)
            raise
        except BaseException:
            _kill(process)
            raise
    code = 0 if stopped else process.returncode
    text = (folder / LOG).read_bytes()[start:].decode(errors="replace")
    return Ended(
        error=_error(code, text),
        seconds=time.monotonic() - began,
        cpu_seconds=_cpu_seconds() - before,
        peak_mb=memory.peak_mb,
    )


def interrupted(folder: Path) -> bool:
    """Whether an earlier training left a checkpoint to go on from."""
    return any(folder.glob("outputs/*/*/*.ckpt"))


def logged(folder: Path) -> Logged:
    """What was trained in a folder; a stage that an interruption made to be repeated counts once."""
    found: dict[str, float] = {}
    for path in sorted(folder.glob("outputs/*/*/train.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                stage = row.get("epoch") or row.get("stage") or ""
                # a line that is being written has no end yet
                if row.get("time") and row.get("seconds"):
                    found[stage] = float(row["seconds"])
    return Logged(list(found.values()), sum(stage.isdigit() for stage in found))


def _error(code: int, text: str) -> str:
    """Why a command failed, from what it printed."""
    if code == 0:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if said:
        return said[-1]
    if code == 130:
        return "stopped"
    if code < 0:
        memory = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{memory}"
    return lines[-1] if lines else f"exit code {code}"


class _Memory:
    """A process that is waited for, and the most memory it ever had."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.peak_mb: float | None = None
        self.status = Path(f"/proc/{process.pid}/status")

    def ended(self) -> bool:
        """Whether the process is over; looks at its memory."""
        self._look()
        if not hasattr(os, "wait4"):
            return self.process.poll() is not None
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return False
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.peak_mb is None:
            self.peak_mb = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        return True

    def _look(self) -> None:
        """On Linux ``ru_maxrss`` begins with the memory of whoever started the process, the file does not."""
        try:
            text = self.status.read_text()
        except OSError:
            return
        for line in text.splitlines():
            if line.startswith("VmHWM:"):
                self.peak_mb = float(line.split()[1]) / 2**10


def _stop(process: subprocess.Popen[bytes], memory: _Memory) -> None:
    """Ask a training to stop, and wait until it has."""
    try:
        process.send_signal(signal.SIGINT)
        while not memory.ended():
            time.sleep(LOOK)
    except BaseException:
        _kill(process)
        raise


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with those it started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _cpu_seconds() -> float:
    """Processor time of all processes that were waited for."""
    times: Any = os.times()
    return float(times.children_user + times.children_system)
