"""SOAP-BPNN passes the kit that every architecture's tests are made of."""

from __future__ import annotations

from atomtrain_testing import ArchitectureTests, Subject, run_all

SMALL = {
    "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
    "bpnn": {"num_neurons_per_layer": 8},
}


class TestSoapBpnn(ArchitectureTests):
    architecture = "soap-bpnn"
    model_hypers = SMALL


def test_with_charge_and_spin() -> None:
    hypers = {**SMALL, "extra_inputs": ["charge", "spin_multiplicity"]}
    subject = Subject("soap-bpnn", hypers)
    names = ["extra_inputs", "rotation", "batch_independence", "gradients"]
    names += ["training_gradients", "constants", "selected_atoms"]
    outcomes = {o.check.name: o for o in run_all(subject, names)}
    wrong = {n: o.message for n, o in outcomes.items() if o.verdict != "passed"}
    assert not wrong
