"""A trained backbone and data with classes; trainings in a folder of their own."""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import atomtrain
from atomtrain.api import TrainingResult

HERE = Path(__file__).parent
PHASES = ("fcc", "bcc", "sc")


def crystal(phase: str, rng: np.random.Generator, symbol: str = "Cu") -> Atoms:
    """A strained, shaken cell with a nearest neighbour at 2.5 A or so; its label in many forms."""
    a = {"fcc": 2.5 * 2**0.5, "bcc": 5 / 3**0.5, "sc": 2.5}[phase]
    atoms = bulk(symbol, phase, a=a, cubic=True).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell.array * (1 + 0.02 * rng.normal()), scale_atoms=True)
    atoms.positions += 0.03 * rng.normal(size=atoms.positions.shape)
    number = PHASES.index(phase)
    atoms.info.update(
        phase=phase,
        number=number,
        one_hot=np.eye(3)[number],
        close_packed=int(phase == "fcc"),
        energy=float(len(atoms) * (0.3 * number + 0.01 * rng.normal())),
    )
    return atoms


def write(path: Path, n: int, seed: int, symbol: str = "Cu") -> list[Atoms]:
    """``n`` crystals of each phase."""
    rng = np.random.default_rng(seed)
    frames = [crystal(phase, rng, symbol) for _ in range(n) for phase in PHASES]
    ase.io.write(path, frames, format="extxyz")
    return frames


def _section(file: str, targets: dict[str, Any]) -> dict[str, Any]:
    return {"systems": {"read_from": file, "length_unit": "angstrom"}, "targets": targets}


def options(targets: dict[str, Any], **training: Any) -> dict[str, Any]:
    """Options of a classifier in float64 on the session's backbone."""
    return {
        "seed": 1,
        "base_precision": 64,
        "architecture": {
            "name": "classifier",
            "model": {"hidden_sizes": [16, 8]},
            "training": {
                "model_checkpoint": "backbone.ckpt",
                "num_epochs": 40,
                "batch_size": 6,
                "learning_rate": 0.02,
                "log_interval": 100,
                **training,
            },
        },
        "training_set": _section("train.xyz", targets),
        "validation_set": _section("validation.xyz", targets),
        "test_set": 0.0,
    }


@pytest.fixture(scope="session", autouse=True)
def _rings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The architecture ``rings`` is installed."""
    site = tmp_path_factory.mktemp("site")
    for name in ("rings_plugin", "rings_model"):
        shutil.copy(HERE / f"{name}.py", site)
    info = site / "rings-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rings\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[atomtrain.architectures]\nrings = rings_plugin\n")
    sys.path.insert(0, str(site))
    yield
    sys.path.remove(str(site))


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and two trained backbones, one of which offers no features."""
    folder = tmp_path_factory.mktemp("workshop")
    write(folder / "train.xyz", 12, seed=1)
    write(folder / "validation.xyz", 4, seed=2)
    write(folder / "other.xyz", 4, seed=3)
    section = _section("train.xyz", {"energy": {"key": "energy", "unit": "eV"}})
    described = {
        "seed": 3,
        "base_precision": 64,
        "architecture": {"name": "rings", "training": {"num_epochs": 3, "batch_size": 6}},
        "training_set": section,
        "validation_set": 0.2,
        "test_set": 0.0,
        "final_eval": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        atomtrain.train(described, output="backbone.pt")
        described["architecture"]["model"] = {"featureless": True}  # type: ignore[index]
        described["architecture"]["training"] = {"num_epochs": 0}  # type: ignore[index]
        atomtrain.train(described, output="featureless.pt")
    return folder


@pytest.fixture
def place(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with a copy of all that."""
    for file in [*workshop.glob("*.xyz"), *workshop.glob("*.ckpt")]:
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Run = Callable[..., TrainingResult]


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
