"""A trained backbone and data with classes; trainings in a folder of their own."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.classes import Run, options, section, write
from helpers.installing import install

import atomtrain
from atomtrain.api import TrainingResult


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the architecture ``rings`` is installed."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "rings", target="rings_plugin")
    return folder


@pytest.fixture(scope="session")
def workshop(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and two trained backbones, one of which offers no features."""
    folder = tmp_path_factory.mktemp("workshop")
    write(folder / "train.xyz", 12, seed=1)
    write(folder / "validation.xyz", 4, seed=2)
    write(folder / "other.xyz", 4, seed=3)
    described_set = section("train.xyz", {"energy": {"key": "energy", "unit": "eV"}})
    described = {
        "seed": 3,
        "base_precision": 64,
        "architecture": {"name": "rings", "training": {"num_epochs": 3, "batch_size": 6}},
        "training_set": described_set,
        "validation_set": 0.2,
        "test_set": 0.0,
        "final_eval": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(site))
        atomtrain.train(described, output="backbone.pt")
        described["architecture"]["model"] = {"featureless": True}  # type: ignore[index]
        described["architecture"]["training"] = {"num_epochs": 0}  # type: ignore[index]
        atomtrain.train(described, output="featureless.pt")
    return folder


@pytest.fixture
def place(site: Path, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with a copy of all that; ``rings`` is installed."""
    monkeypatch.syspath_prepend(str(site))
    for file in [*workshop.glob("*.xyz"), *workshop.glob("*.ckpt")]:
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(place: Path) -> Run:
    """Train on these targets: ``run({...}, num_epochs=3, model={...}, output=..., changes={...})``."""

    def train(
        targets: dict[str, Any] | None = None,
        *,
        output: str = "model.pt",
        restart: str | None = None,
        model: dict[str, Any] | None = None,
        changes: dict[str, Any] | None = None,
        **training: Any,
    ) -> TrainingResult:
        described = options(targets or {"mtt::phase": {"key": "phase"}}, **training)
        described["architecture"]["model"].update(model or {})
        described.update(copy.deepcopy(changes or {}))
        return atomtrain.train(described, output=output, restart=restart)

    return train
