"""A project of every level, rendered once and put on the path as if it were installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.installing import install

from atomtrain_template.names import LEVELS
from atomtrain_template.render import render


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each level's project; the architecture is called ``own-<level>``."""
    folder = tmp_path_factory.mktemp("projects")
    return {
        level: render(
            f"own-{level}",
            level=level,
            author="Ada Example",
            email="ada@example.org",
            output=folder,
        )
        for level in LEVELS
    }


@pytest.fixture(scope="module")  # no other test is to find these architectures
def installed(
    projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """The same with their sources on the path, and the metadata that pip would write."""
    site = tmp_path_factory.mktemp("site")
    for project in projects.values():
        text = (project / "pyproject.toml").read_text()
        points = re.search(r'entry-points\."([^"]+)"\]\n(\S+) = "(\S+)"\n', text)
        name = re.search(r'^name = "(\S+)"', text, re.MULTILINE)
        assert points and name
        install(site, name[1], group=points[1], entry=points[2], target=points[3], version="0.1.0")
    added = [str(site), *(str(project / "src") for project in projects.values())]
    sys.path[:0] = added
    yield projects
    sys.path[:] = [p for p in sys.path if p not in added]
