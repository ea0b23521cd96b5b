"""Which warnings are errors, and what trainings inside of tests leave out.

pytest.ini names our packages for the first, and this file our tests and their helpers.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import launched
from helpers.unreported import without_report

HERE = Path(__file__).parent
FOLDERS = ("core/tests", "plugins/*/tests", "examples/*/tests", "tests", "docs/_pages")


def pytest_configure(config: pytest.Config) -> None:
    """Add their names to the filters, after ``default`` and before what is ignored on purpose."""
    names = sorted({name for folder in FOLDERS for name in _names(folder)})
    line = rf"error:::({'|'.join(map(re.escape, names))})\Z"
    config.getini("filterwarnings").insert(1, line)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--verify", action="store_true", help="verify what every training exports")
    parser.addoption("--kills", type=int, default=100, help="how often tests/faults.py kills")


@pytest.fixture(scope="session", autouse=True)
def _unverified(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trainings inside of tests save a quarter of a second; those by the command line, and ``--verify``, verify."""
    if request.config.getoption("--verify"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for room in ("atomtrain.api", "atomtrain.runs.finish"):
            patch.setattr(importlib.import_module(room), "save_verified", _saved)
        yield


@pytest.fixture(scope="session", autouse=True)
def _unreported() -> Iterator[None]:
    """Trainings inside of tests, by the hundred, make a report only where their options ask for it."""
    room = importlib.import_module("atomtrain.runs.plan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "always_made", without_report(room.always_made))
        yield


@pytest.fixture(scope="session", autouse=True)
def _forked() -> Iterator[None]:
    """Processes that the kit starts have torch imported already; those of ``atomtrain check`` as a command do not."""
    with pytest.MonkeyPatch.context() as patch:
        room = importlib.import_module("atomtrain_testing.life_cycle")
        patch.setattr(room, "launched", launched)
        yield


def _saved(model: Any, path: Path, *_: Any, extensions: Any = None) -> Any:
    from atomtrain.model.export import save_model

    return save_model(model, path, extensions=extensions)


def _names(folder: str) -> Iterator[str]:
    """All names that modules of a folder may have, whoever imports them: ``test_x``, ``tests.test_x``."""
    for file in HERE.glob(f"{folder}/**/*.py"):
        parts = file.relative_to(HERE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        for start in range(len(parts)):
            yield ".".join(parts[start:])
