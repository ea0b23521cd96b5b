"""LLPR passes the conformance kit, and works on models that say in three ways what their last layers take.

SOAP-BPNN and ACE have readouts of their own; the architecture of the author's guide has heads of the core, and not a
line for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.alloy import options, write_crystal
from helpers.installing import install

import atomtrain
from atomtrain.model.export import load_model
from atomtrain.plugins.restore import restore
from atomtrain.training.checkpoint import load_checkpoint, save_checkpoint
from atomtrain.verification import verify
from atomtrain_testing import ArchitectureTests
from atomtrain_testing.subject import Subject
from atomtrain_testing.training import train

SOAP = {
    "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
    "bpnn": {"num_hidden_layers": 1, "num_neurons_per_layer": 6},
}
MODELS: dict[str, dict[str, Any]] = {
    "soap-bpnn": SOAP,
    "ace": {"cutoff": 4.0, "num_radial": 3, "max_degree": 2, "num_channels": 4, "num_neurons": 4},
    "moments": {"cutoff": 4.0, "width": 8},
}
GUIDE = Path(__file__).parent.parent / "examples" / "architecture" / "src"


@pytest.fixture(scope="class")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A potential of one epoch."""
    subject = Subject("soap-bpnn", SOAP)
    path = tmp_path_factory.mktemp("backbone") / "backbone.ckpt"
    save_checkpoint(train(subject, [subject.main], num_epochs=1).outcome.checkpoint, path)
    TestLlpr.training_hypers = {"model_checkpoint": str(path)}


@pytest.mark.usefixtures("backbone")
class TestLlpr(ArchitectureTests):
    architecture = "llpr"
    model_hypers = {"num_ensemble_members": 4}
    exempt = {"fits": "nothing is trained: predictions are those of the model inside"}


@pytest.mark.parametrize("name", list(MODELS))
def test_on_three_architectures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, wrapped, exported; the file gives what the checkpoint gives, which fits the errors."""
    install(tmp_path / "site", "moments", target="atomtrain_moments.plugin")
    monkeypatch.syspath_prepend(str(GUIDE))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    write_crystal(tmp_path / "crystal.xyz", 20)
    given = options()
    training = {"num_epochs": 2, "batch_size": 4}
    given["architecture"] = {"name": name, "model": MODELS[name], "training": training}
    given["validation_set"] = 0.5
    atomtrain.train(given, output="potential.pt")
    given["architecture"] = {
        "name": "llpr",
        "model": {"num_ensemble_members": 3},
        "training": {"model_checkpoint": "potential.ckpt"},
    }
    atomtrain.train(given, output="model.pt")
    predictor = restore(load_checkpoint(Path("model.ckpt")), "export").predictor
    found = verify(load_model("model.pt"), None, predictor)
    assert found.right and not found.wrong, found.wrong
    section = given["training_set"]
    before, after = (
        atomtrain.evaluate(f"{file}.pt", section, output=None)[0] for file in ("potential", "model")
    )
    for key, values in before.predictions.items():
        torch.testing.assert_close(after.predictions[key], values, rtol=1e-6, atol=1e-5)
    assert after.reliability.keys() == {"energy", "energy:forces"}
    assert 0.3 < after.reliability["energy"].ratio < 3.0
