"""MACE passes the kit that every architecture's tests are made of."""

from __future__ import annotations

import pytest

from atomtrain_testing import ArchitectureTests

pytest.importorskip(
    "mace", reason="mace-torch needs e3nn 0.4.4 and has an environment of its own: nox -s mace"
)

SMALL = {
    "r_max": 4.0,
    "num_radial_basis": 4,
    "radial_MLP": [8],
    "max_ell": 2,
    "hidden_irreps": "8x0e + 8x1o + 8x2e",
    "correlation": 2,
    "MLP_irreps": "6x0e",
}


class TestMace(ArchitectureTests):
    architecture = "mace"
    model_hypers = SMALL
    training_hypers = {
        "ema_decay": 0.9
    }  # a batch is fitted in few steps, of which averages would be late
