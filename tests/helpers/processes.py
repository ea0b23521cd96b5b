"""Fresh interpreters and the command line, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from atomtrain_testing.subject import environment

FORKS = Path(__file__).with_name("forks.py")


def atomtrain(
    folder: Path, *arguments: str, site: Path | None = None, fresh: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder``; what is installed in ``site`` is found as well.

    ``fresh``: as users do, in an interpreter that begins with nothing; else in a fork of one that has
    imported torch (see ``forks``), which takes a tenth of the time to begin.
    """
    surroundings = environment(*filter(None, [site]), **env)
    if not fresh:
        return _forked(folder, arguments, site, surroundings)
    return subprocess.run(
        [sys.executable, "-m", "atomtrain", *arguments],
        cwd=folder,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=300,
    )


def _forked(
    folder: Path, arguments: tuple[str, ...], site: Path | None, surroundings: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as errors:
        child = _fork(folder, arguments, site, surroundings, out.name, errors.name)
        code = _ask(wait=child, timeout=300)["code"]
        return subprocess.CompletedProcess(arguments, code, out.read(), errors.read())


class Running:
    """A command that runs meanwhile, in a fork (see ``forks``); ``output`` is what it printed so far."""

    def __init__(self, folder: Path, *arguments: str, site: Path | None = None, **env: str) -> None:
        handle, name = tempfile.mkstemp(dir=folder, suffix=".output")
        os.close(handle)
        self.file = Path(name)
        surroundings = environment(*filter(None, [site]), **env)
        self.pid: int = _fork(folder, arguments, site, surroundings, name, name)
        self.code: int | None = None

    @property
    def output(self) -> str:
        return self.file.read_text(encoding="utf-8")

    def wait(self, timeout: float = 300) -> int | None:
        """Its exit status; None where it runs on after this many seconds."""
        if self.code is None:
            self.code = _ask(wait=self.pid, timeout=timeout)["code"]
        return self.code

    def poll(self) -> int | None:
        """Its exit status; None where it still runs."""
        return self.wait(0)

    def kill(self) -> None:
        """End it at once."""
        self.send(signal.SIGKILL)

    def forget(self) -> None:
        """Remove what it printed."""
        self.file.unlink(missing_ok=True)

    def send(self, number: int) -> None:
        """Send a signal, unless it is known to have ended."""
        if self.code is None:
            os.kill(self.pid, number)


def launched(folder: Path, log: Path, place: Mapping[str, str]) -> Running:
    """As :func:`atomtrain_testing.life_cycle.launched`, in a fork; ``log`` has what it prints."""
    running = Running(folder, "train", "options.yaml", "-r", "final_eval=false", **place)
    log.symlink_to(running.file)
    return running


def ranks(
    n: int,
    folder: Path,
    *arguments: str,
    each: Sequence[Sequence[str]] = (),
    folders: Sequence[Path] = (),
    **env: str,
) -> list[Running]:
    """The command in ``n`` processes that find each other as those of torchrun do.

    ``each`` are further arguments of each, ``folders`` their own folders.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **env}
    running = []
    for k in range(n):
        own, more = folders[k] if folders else folder, each[k] if each else ()
        running.append(Running(own, *arguments, *more, **place, RANK=str(k), LOCAL_RANK=str(k)))
    return running


def _fork(
    folder: Path,
    arguments: tuple[str, ...],
    site: Path | None,
    surroundings: dict[str, str],
    out: str,
    errors: str,
) -> int:
    pid: int = _ask(
        folder=str(folder),
        arguments=arguments,
        site=[] if site is None else [str(site)],
        environment=surroundings,
        stdout=out,
        stderr=errors,
    )["pid"]
    return pid


def _ask(**job: Any) -> dict[str, Any]:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    answer: dict[str, Any] = json.loads(server.stdout.readline())
    return answer


def together(folder: Path, n: int, *arguments: str) -> str:
    """Run a command as ``n`` processes, all of which must succeed; what they print."""
    if n == 1:
        done = atomtrain(folder, *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout + done.stderr
    running = ranks(n, folder, *arguments)
    codes = [one.wait(300) for one in running]
    output = "".join(one.output for one in running)
    for one in running:
        one.forget()
    assert codes == [0] * n, output
    return output


@cache
def _server() -> subprocess.Popen[str]:
    """Ends with this process, which closes its input."""
    return subprocess.Popen(
        [sys.executable, str(FORKS)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def python(
    code: str, *arguments: str, site: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter; what is installed in ``site`` is found as well."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(*filter(None, [site]), **{"COLUMNS": "200", **env}),
        capture_output=True,
        text=True,
    )
