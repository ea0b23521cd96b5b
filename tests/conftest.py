"""Small real trainings, shared by the tests that look at what they leave behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.alloy import write_crystal, write_options
from helpers.processes import atomtrain


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a float64 model of a small alloy was trained by the command line."""
    folder = tmp_path_factory.mktemp("trained")
    write_crystal(folder / "crystal.xyz", 24)
    write_options(folder / "options.yaml", base_precision=64)
    done = atomtrain(folder, "train", "options.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def workplace(trained: Path, tmp_path: Path) -> Path:
    """A folder with the data and options, but no results."""
    for name in ("crystal.xyz", "options.yaml"):
        shutil.copy(trained / name, tmp_path / name)
    return tmp_path
