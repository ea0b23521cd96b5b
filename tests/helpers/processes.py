"""Fresh interpreters and the command line, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from atomtrain_testing.subject import environment


def atomtrain(
    folder: Path, *arguments: str, site: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder``; what is installed in ``site`` is found as well."""
    return subprocess.run(
        [sys.executable, "-m", "atomtrain", *arguments],
        cwd=folder,
        env=environment(*filter(None, [site]), **env),
        capture_output=True,
        text=True,
        timeout=300,
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
