"""LLPR passes the conformance kit, on models that say what their last layers take in three ways.

SOAP-BPNN and ACE have readouts of their own, the architecture of the author's guide has heads of the core and not a line
for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.installing import install

from atomtrain.training.checkpoint import save_checkpoint
from atomtrain_testing import ArchitectureTests
from atomtrain_testing.examples import Example
from atomtrain_testing.subject import Subject
from atomtrain_testing.training import train

ENERGY = Example("energy", {"key": "energy", "unit": "eV", "forces": True, "stress": True})
SMALL: dict[str, Mapping[str, Any]] = {
    "soap-bpnn": {
        "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
        "bpnn": {"num_hidden_layers": 1, "num_neurons_per_layer": 6},
    },
}
