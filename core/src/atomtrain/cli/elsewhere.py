"""Commands about architectures that live in another environment: the same command, run there."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from atomtrain.contract import environments
from atomtrain.contract.environments import OtherEnvironment
from atomtrain.errors import AtomtrainError

_FAILED = (1, 2)
"""exit codes of a command that has said what is wrong, or how it is used"""


def check_options(options: Path, overrides: Sequence[str]) -> None:
    """Raise OtherEnvironment where the architecture of an options file is elsewhere, before torch is imported.

    This process is to wait for another then, and needs no more memory than that takes. Whatever is wrong is
    said later, when all of the options is looked at.
    """
    from atomtrain.options import peer
    from atomtrain.plugins import open_architecture
    from atomtrain.sections import read_document

    try:
        values = read_document(options, overrides, peer.todays_name).values
        section = values.get("architecture") if isinstance(values, dict) else None
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            return
        if isinstance(section.get("environment"), str):
            environments.check_environment(section["name"], section["environment"])
        else:
            open_architecture(section["name"])
    except OtherEnvironment:
        raise
    except (AtomtrainError, OSError):
        return


def run_there(error: OtherEnvironment, arguments: Sequence[str]) -> int:
    """Run the command in the environment and give its exit code; what ended it is said if it could not say it."""
    began = time.time()
    try:
        code = environments.run(error.environment, arguments)
    except (AtomtrainError, OSError) as failure:
        print(f"error: '{error.environment}' cannot be used: {failure}", file=sys.stderr)
        return 1
    if code < 0:
        print(f"error: {_killed(-code, error.environment, began)}", file=sys.stderr)
        return 128 - code
    if code in _FAILED:
        where = f"this ran in the environment '{error.environment}', which has {error.what}"
        print(f"{where}; packages that it misses have to be installed there", file=sys.stderr)
    return code


def _killed(number: int, environment: Path, began: float) -> str:
    """In words: by which signal a command ended, what that mostly means, where its log is."""
    name = signal.Signals(number).name
    why = {
        "SIGKILL": "most often because memory ran out (the system's or the queue's log says so)",
        "SIGSEGV": "a library crashed",
        "SIGABRT": "a library gave up",
        "SIGBUS": "a library crashed, or a disk is full",
        "SIGILL": "a library was built for another processor",
    }.get(name, "by somebody, or by the queue")
    said = f"the command was ended in the environment '{environment}' by {name}, {why}"
    logs = []
    for log in Path("outputs").glob("*/*/train.log"):
        with contextlib.suppress(OSError):
            if log.stat().st_mtime >= began - 1.0:  # clocks of file systems are coarse
                logs.append((log.stat().st_mtime, log))
    if logs:
        said += f". Its log until then: {max(logs)[1]}. To go on, add --restart auto"
    return said
