"""The linear potential passes the kit that every architecture's tests are made of."""

from __future__ import annotations

from atomtrain_testing import ArchitectureTests


class TestLinear(ArchitectureTests):
    architecture = "linear"
    model_hypers = {
        "cutoff": 4.0,
        "num_radial": 4,
        "max_degree": 2,
        "num_pairs": 8,
        "num_products": 6,
    }
    training_hypers = {
        "ridge": 1e-5
    }  # smaller ones make more of rounding than two processes may differ by
