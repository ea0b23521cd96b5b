"""Charges from a file of options to every place where a model is run: trainings, evaluation, ASE, backbones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from metatomic_ase import MetatomicCalculator

from atomtrain import api
from atomtrain.errors import OptionsError
from atomtrain.model.export import load_model, requested_inputs

SMALL = {
    "soap": {"max_angular": 1, "max_radial": 1, "cutoff": {"radius": 3.0}},
    "bpnn": {"num_hidden_layers": 1, "num_neurons_per_layer": 6},
    "extra_inputs": ["charge"],
}


def options(**changes: Any) -> dict[str, Any]:
    section = {
        "systems": "ions.xyz",
        "targets": {"energy": {"unit": "eV", "forces": False, "stress": False}},
        "extra_data": {"charge": {"key": "q", "default": 0}},
        **changes.pop("section", {}),
    }
    training = {"num_epochs": 30, "batch_size": 4, "optimizer": "muon", "learning_rate": 0.01}
    return {
        "device": "cpu",
        "architecture": {"name": "soap-bpnn", "model": SMALL, "training": training},
        "training_set": section,
        "validation_set": section,
        **changes,
    }


def tuned(**section: Any) -> dict[str, Any]:
    given = options(section=section)
    given["architecture"] = {
        "name": "soap-bpnn",
        "training": {"finetune": {"read_from": "model.ckpt"}, "num_epochs": 1},
    }
    return given


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ions.xyz``, whose energies say little but the charge, and a model of them."""
    folder = tmp_path_factory.mktemp("ions")
    rng, frames = np.random.default_rng(0), []
    for k in range(12):
        atoms = Atoms("OHH", np.eye(3) + 0.1 * rng.normal(size=(3, 3)))
        charge = k % 3 - 1
        atoms.info.update(energy=5.0 * charge, kind="ion" if charge else "neutral")
        if charge:  # others have the default
            atoms.info["q"] = charge
        frames.append(atoms)
    ase.io.write(folder / "ions.xyz", frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        api.train(options())
    return folder


@pytest.fixture
def folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def test_ase_and_eval_see_the_charge(folder: Path) -> None:
    (found,) = api.evaluate("model.pt", options()["training_set"], output="out.xyz", batch_size=5)
    assert found.errors["energy"]["rmse"] < 0.8  # per atom; 1.4 if it did not know
    written = ase.io.read("out.xyz", ":")
    assert [atoms.info["charge"] for atoms in written] == [-1, 0, 1] * 4
    calculator = MetatomicCalculator("model.pt", device="cpu", check_consistency=True)
    for atoms, energy in zip(written[:3], found.predictions["energy"].flatten(), strict=False):
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(float(energy), abs=1e-5)
    assert "charge" in api.show("model.pt")["capabilities"]["inputs"]


def test_data_without_the_charge(folder: Path) -> None:
    bare = {"extra_data": {}}
    message = r"training_set.extra_data: the model takes 'charge' of every system"
    for given in (options(section=bare), tuned(**bare)):
        with pytest.raises(OptionsError, match=message):
            api.train(given, output="other.pt")
    with pytest.raises(OptionsError, match=r"extra_data: the model takes 'charge' of every system"):
        api.evaluate("model.pt", options(section=bare)["training_set"], output=None)
    api.train(tuned(), output="other.pt")


def test_a_classifier_on_a_model_that_takes_charges(folder: Path) -> None:
    target = {"mtt::kind": {"key": "kind", "type": {"classes": {"names": ["ion", "neutral"]}}}}
    given = options(section={"targets": target})
    training = {"model_checkpoint": "model.ckpt", "num_epochs": 60, "learning_rate": 0.01}
    given["architecture"] = {"name": "classifier", "training": training}
    result = api.train(given, output="kinds.pt")
    assert result.errors["training"]["mtt::kind"]["accuracy"] == 1.0
    assert list(requested_inputs(load_model("kinds.pt"))) == ["charge"]
    given["training_set"] = options(section={"targets": target, "extra_data": {}})["training_set"]
    given["validation_set"] = given["training_set"]
    with pytest.raises(OptionsError, match="the model takes 'charge' of every system"):
        api.train(given, output="other.pt")


def test_extra_data_that_nothing_takes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = options()
    given["architecture"]["model"] = {**SMALL, "extra_inputs": []}
    given["architecture"]["training"] = {"num_epochs": 1}
    with caplog.at_level(logging.WARNING, "atomtrain"):
        api.train(given, output="other.pt")
    assert (
        "nothing takes 'charge': it is neither an input of the model (it has none)" in caplog.text
    )
