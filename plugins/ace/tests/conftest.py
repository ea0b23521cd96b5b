"""Awkward structures, and a model that has looked at them."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from helpers.soap import TYPES, info, structures
from helpers.structures import source_of

from atomtrain.data import Batch
from atomtrain_ace.hypers import ModelHypers
from atomtrain_ace.model import Ace
from atomtrain_testing.predictions import store_of

SMALL = {"cutoff": 4.5, "num_radial": 4, "max_degree": 2, "num_channels": 5, "num_neurons": 7}


@pytest.fixture(scope="session")
def frames() -> list[Atoms]:
    return structures()


@pytest.fixture(scope="session")
def batch(frames: list[Atoms]) -> Batch:
    made = source_of(store_of(frames), cutoff=4.5).batch(torch.arange(len(frames)))
    forces = torch.randn(made.graph.positions.shape, generator=torch.Generator().manual_seed(5))
    made.labels["energy:forces"] = 30.0 * forces.to(torch.float64)
    return made


@pytest.fixture(params=[(2, 1), (3, 1), (4, 1), (2, 2), (4, 2)], ids="{0[0]}-{0[1]}".format)
def model(request: pytest.FixtureRequest, batch: Batch) -> Ace:
    correlation, num_layers = request.param
    torch.manual_seed(0)
    messages = correlation // 2  # 1: not all of the first layer's channels go on to the second
    hypers = ModelHypers(
        **SMALL, correlation=correlation, num_layers=num_layers, num_messages=messages
    )
    made = Ace(hypers, info(TYPES)).to(torch.float64)
    made.calibrate(iter([batch]))
    return made
