"""The command line in forks of one process that has imported what takes seconds: torch, ASE, the core.

Run as a script it reads jobs, a line of JSON each, and answers each with a line: ``{"pid": of the run}``. A line
``{"wait": pid, "timeout": seconds}`` is answered with ``{"code": exit status}``, null where it still runs. Everything
else of a run is as in a process of its own: directory, environment, output, what it imports further, how it ends. But
no training makes a report unless its options ask for it.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

from unreported import without_report  # this is run as a script

TIMEOUT = 300
"""seconds after which a run is killed"""


def main() -> None:
    """Answer jobs until there are none."""
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever is printed meanwhile is no answer
    import ase.io
    import metatomic.torch
    import torch
    import torch._dynamo

    import atomtrain.api
    from atomtrain.cli.app import main as command

    room = importlib.import_module("atomtrain.runs.plan")
    vars(room)["always_made"] = without_report(room.always_made)
    del ase, metatomic, torch, atomtrain
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            os.write(
                answers, (json.dumps({"code": _wait(job["wait"], job["timeout"])}) + "\n").encode()
            )
            continue
        child = os.fork()
        if child == 0:
            os.close(answers)
            os._exit(_run(command, job))
        os.write(answers, (json.dumps({"pid": child}) + "\n").encode())


def _wait(child: int, timeout: float) -> int | None:
    until = time.monotonic() + timeout
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


def _run(command: Any, job: dict[str, Any]) -> int:
    """One run, in the child; its exit status."""
    signal.alarm(TIMEOUT)
    os.chdir(job["folder"])
    sys.path[:0] = job["site"]
    os.environ.clear()
    os.environ.update(job["environment"])
    # what a process of its own reads as it begins
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in known if path and path not in sys.path]
    sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, job["stdout"]), (2, job["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = ["atomtrain", *job["arguments"]]
    status: Any = 1
    try:
        status = command()
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    if isinstance(status, str):
        print(status, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else int(status is not None)


if __name__ == "__main__":
    main()
