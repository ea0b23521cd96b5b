"""The classifier passes the conformance kit, on a backbone that is SOAP-BPNN."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomtrain.training.checkpoint import save_checkpoint
from atomtrain_testing import ArchitectureTests
from atomtrain_testing.subject import Subject
from atomtrain_testing.training import train


@pytest.fixture(scope="class", autouse=True)
def backbone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A potential of one epoch: features need not be good here."""
    small = {
        "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
        "bpnn": {"num_hidden_layers": 1, "num_neurons_per_layer": 6},
    }
    subject = Subject("soap-bpnn", small)
    path = tmp_path_factory.mktemp("backbone") / "backbone.ckpt"
    save_checkpoint(train(subject, [subject.main], num_epochs=1).outcome.checkpoint, path)
    TestClassifier.training_hypers = {
        "model_checkpoint": str(path),
        "batch_size": 4,
        "learning_rate": 0.01,
    }


class TestClassifier(ArchitectureTests):
    architecture = "classifier"
    model_hypers = {"hidden_sizes": [16, 16]}
    fit_epochs = 1000
    dtypes = ("float32", "float64")  # SOAP-BPNN's
    golden = Path(__file__).parents[1] / "plugins" / "classifier" / "tests" / "golden"
