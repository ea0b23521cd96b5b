"""SOAP-BPNN passes the kit that every architecture's tests are made of."""

from __future__ import annotations

from atomtrain_testing import ArchitectureTests

SMALL = {
    "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
    "bpnn": {"num_neurons_per_layer": 8},
}


class TestSoapBpnn(ArchitectureTests):
    architecture = "soap-bpnn"
    model_hypers = SMALL
