"""The awkward structures as fixtures."""

from __future__ import annotations

import pytest
from ase import Atoms
from helpers.soap import structures
from helpers.structures import graph_of

from atomtrain.graph import AtomGraph


@pytest.fixture(scope="session")
def frames() -> list[Atoms]:
    return structures()


@pytest.fixture(scope="session")
def graph(frames: list[Atoms]) -> AtomGraph:
    return graph_of(frames)
