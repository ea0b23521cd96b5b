"""Fits through the Python API: more data by a restart, other ridges, uncertainty, and the exported model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

from atomtrain import api
from atomtrain.errors import OptionsError
from atomtrain.training.checkpoint import load_checkpoint

SMALL = {"cutoff": 4.0, "num_radial": 4, "max_degree": 2, "num_pairs": 8, "num_products": 6}


def clusters(n: int, seed: int, stretch: float = 1.0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        places = 2.6 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0.2]])
        atoms = Atoms(
            rng.permuted(["Cu", "Cu", "Cu", "Al", "Al"]),
            stretch * places + 0.1 * rng.normal(size=(5, 3)),
        )
        atoms.calc = EMT()
        found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **found)
        made.append(atoms)
    return made


def fit(
    folder: Path, restart: str | None = None, model: dict[str, Any] = SMALL, **training: Any
) -> api.TrainingResult:
    targets = {"energy": {"unit": "eV", "forces": True, "stress": False}}
    hypers = {"batch_size": 5, "ridge": 1e-6, **training}
    sections = {
        f"{part}_set": {"systems": f"{part}.xyz", "targets": targets}
        for part in ("training", "validation")
        if (folder / f"{part}.xyz").exists()
    }
    sections.setdefault("validation_set", 0)
    architecture = {"name": "linear", "model": model, "training": hypers}
    options = {"base_precision": 64, "architecture": architecture, **sections}
    (folder / "options.yaml").write_text(yaml.safe_dump(options))
    return api.train("options.yaml", restart=restart)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fit of 12 structures, ``few.ckpt``; 20 of them are in ``all.xyz``."""
    folder = tmp_path_factory.mktemp("linear")
    ase.io.write(folder / "all.xyz", clusters(20, 0))
    ase.io.write(folder / "training.xyz", ase.io.read(folder / "all.xyz", ":12"))
    ase.io.write(folder / "validation.xyz", clusters(6, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit(folder)
    for suffix in (".ckpt", ".pt"):
        (folder / f"model{suffix}").rename(folder / f"few{suffix}")
    return folder


@pytest.fixture
def folder(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(first, tmp_path / "run", ignore=shutil.ignore_patterns("outputs"))
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


def coefficients(result: api.TrainingResult) -> torch.Tensor:
    model = load_checkpoint(result.directory / "model.ckpt")["model"]["best"]
    return torch.cat([model["weight"].flatten(), model["constant"]])


def log_of(result: api.TrainingResult) -> str:
    return (result.directory / "train.log").read_text()


def test_a_restart_with_more_structures_is_the_fit_of_all(folder: Path) -> None:
    shutil.copy("all.xyz", "training.xyz")
    added = fit(folder, restart="few.ckpt")
    assert "8 structures are added to the checkpoint's 12" in log_of(added)
    assert "rows: 2 batches" in log_of(added)
    anew = fit(folder, atomic_baseline="few.ckpt", fixed_scaling_weights="few.ckpt")
    assert "rows: 4 batches" in log_of(anew)
    torch.testing.assert_close(coefficients(added), coefficients(anew), rtol=1e-7, atol=1e-8)


def test_a_restart_with_another_structure_gone_adds_all_anew(folder: Path) -> None:
    ase.io.write("training.xyz", ase.io.read("all.xyz", "3:20"))
    result = fit(folder, restart="few.ckpt")
    assert "all are added anew" in log_of(result)
    assert "rows: 4 batches" in log_of(result)


def test_ridge_and_weights_are_free_without_a_second_pass(folder: Path) -> None:
    loss = {"energy": {"weight": 3.0, "forces": {"weight": 2.0}}}
    result = fit(folder, restart="few.ckpt", ridge=1e-3, loss=loss)
    assert "rows:" not in log_of(result)
    anew = fit(folder, ridge=1e-3, loss=loss)
    torch.testing.assert_close(coefficients(result), coefficients(anew))


def test_without_validation_evidence_chooses(folder: Path) -> None:
    (folder / "validation.xyz").unlink()
    result = fit(folder, ridge="validation")
    assert "best stage 0 (ridge" in log_of(result)


def test_without_uncertainty_the_covariance_is_not_kept(folder: Path) -> None:
    result = fit(folder, model={**SMALL, "smoothness": 0.0, "uncertainty": False})
    assert load_checkpoint(result.directory / "model.ckpt")["model"]["best"]["factor"].numel() == 0
    assert list(api.load(result.directory / "model.pt").capabilities().outputs) == ["energy"]
    with_it = (folder / "few.pt").stat().st_size
    assert (result.directory / "model.pt").stat().st_size < with_it


def test_losses_that_are_no_squares_are_refused(folder: Path) -> None:
    with pytest.raises(OptionsError, match=r"means of squares \(mse\), not 'mae"):
        fit(folder, loss={"energy": {"type": "mae"}})


def test_exported_uncertainty_is_measured_by_validation_and_grows_beyond(first: Path) -> None:
    model = api.load(first / "few.pt")
    calculator = MetatomicCalculator(model, device="cpu")

    def ask(frames: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        outputs = {name: ModelOutput() for name in ("energy", "energy_uncertainty")}
        found = [calculator.run_model(atoms, outputs) for atoms in frames]
        got = [[float(o[name].block().values) for o in found] for name in outputs]
        return np.array(got[0]), np.array(got[1])

    seen = ase.io.read(first / "validation.xyz", ":")
    energies, deviations = ask(seen)
    errors = energies - [atoms.get_potential_energy() for atoms in seen]
    assert np.square(errors / deviations).mean() == pytest.approx(1.0, rel=0.05)
    _, beyond = ask(clusters(6, 2, stretch=1.15))
    assert np.median(beyond) > 1.5 * np.median(deviations)
    assert model.capabilities().outputs["energy_uncertainty"].unit == "eV"
