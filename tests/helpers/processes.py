"""Fresh interpreters and the command line, in processes of their own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

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
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as errors:
        job = {
            "folder": str(folder),
            "arguments": arguments,
            "site": [] if site is None else [str(site)],
            "environment": surroundings,
            "stdout": out.name,
            "stderr": errors.name,
        }
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, answer["code"], out.read(), errors.read())


def together(folder: Path, n: int, *arguments: str) -> str:
    """Run a command as ``n`` processes with torchrun's variables, all of which must succeed; what they print."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "atomtrain", *arguments],
            cwd=folder,
            env=environment(**({**shared, "RANK": str(r), "LOCAL_RANK": str(r)} if n > 1 else {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in range(n)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * n, outputs
    return "".join(outputs)


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
