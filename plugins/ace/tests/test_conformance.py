"""ACE passes the kit that every architecture's tests are made of."""

from __future__ import annotations

from atomtrain_testing import ArchitectureTests

SMALL = {"cutoff": 4.0, "num_radial": 4, "max_degree": 2, "num_channels": 6, "num_neurons": 8}


class TestAce(ArchitectureTests):
    architecture = "ace"
    model_hypers = SMALL


class TestTwoLayers(ArchitectureTests):
    architecture = "ace"
    model_hypers = {**SMALL, "num_layers": 2}
