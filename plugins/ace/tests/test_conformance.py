"""ACE passes the kit that every architecture's tests are made of."""

from __future__ import annotations

from atomtrain_testing import ArchitectureTests, Subject, run_all

SMALL = {"cutoff": 4.0, "num_radial": 4, "max_degree": 2, "num_channels": 6, "num_neurons": 8}


class TestAce(ArchitectureTests):
    architecture = "ace"
    model_hypers = SMALL


class TestTwoLayers(ArchitectureTests):
    architecture = "ace"
    model_hypers = {**SMALL, "num_layers": 2}


def test_with_charge_and_spin() -> None:
    """What differs with inputs; of two layers, which have the first within them."""
    inputs = ["charge", "spin_multiplicity"]
    subject = Subject("ace", {**SMALL, "num_layers": 2, "extra_inputs": inputs})
    names = ["extra_inputs", "batch_independence", "gradients", "training_gradients"]
    outcomes = {o.check.name: o for o in run_all(subject, names)}
    assert not {n: o.message for n, o in outcomes.items() if o.verdict != "passed"}
