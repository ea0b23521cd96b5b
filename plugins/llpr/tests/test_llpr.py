"""A trained model with uncertainties: what they are, what files give, and what is refused."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.classes import section, write
from helpers.installing import install
from metatomic.torch import ModelEvaluationOptions, ModelOutput
from metatomic_ase import MetatomicCalculator

import atomtrain
from atomtrain.errors import AtomtrainError, OptionsError, TargetError
from atomtrain.evaluation import systems_of
from atomtrain.model.export import load_model
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain_testing.predictions import store_of

FEATURES = "mtt::aux::energy_last_layer_features"
TARGETS = {"energy": {"key": "energy", "unit": "eV", "forces": False, "stress": False}}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the architecture ``rings``, whose heads are the core's, is installed."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "rings", target="rings_plugin")
    return folder


def described(name: str, training: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Options in float64."""
    return {
        "seed": 3,
        "base_precision": 64,
        "architecture": {"name": name, "training": training},
        "training_set": section("train.xyz", copy.deepcopy(TARGETS)),
        "validation_set": section("validation.xyz", copy.deepcopy(TARGETS)),
        "test_set": 0.0,
        "final_eval": False,
        **changes,
    }


@pytest.fixture(scope="session")
def workshop(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a trained model."""
    folder = tmp_path_factory.mktemp("workshop")
    write(folder / "train.xyz", 12, seed=1)
    write(folder / "validation.xyz", 6, seed=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(site))
        training = {"num_epochs": 3, "batch_size": 6}
        atomtrain.train(described("rings", training), output="potential.pt")
    return folder


@pytest.fixture
def place(site: Path, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with a copy of all that; ``rings`` is installed."""
    monkeypatch.syspath_prepend(str(site))
    for file in (*workshop.glob("*.xyz"), *workshop.glob("potential.*")):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(
    place: Path,
    model: dict[str, Any] | None = None,
    changes: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    training = {"model_checkpoint": "potential.ckpt", **more}
    options = described("llpr", training, **(changes or {}))
    options["architecture"]["model"] = model or {}
    return atomtrain.train(options, output="llpr.pt")


def calls(file: str, frames: list[Atoms], names: tuple[str, ...], kind: str = "system") -> Any:
    """Outputs of an exported model, ``[n_frames or n_atoms, n]`` each."""
    calculator = MetatomicCalculator(file, uncertainty_threshold=None)
    outputs = {name: ModelOutput(sample_kind=kind) for name in names}
    found = [calculator.run_model(atoms, outputs) for atoms in frames]
    return [np.concatenate([f[name].block().values.numpy() for f in found]) for name in names]


def test_it_is_bayesian_ridge_regression_on_the_last_layer(place: Path) -> None:
    """Found again with numpy from what the trained model itself gives."""
    ridge = 1e-3
    result = fit(place, regularizer=ridge)
    train, valid = (ase.io.read(f"{part}.xyz", ":") for part in ("train", "validation"))
    (x,) = calls("potential.pt", train, (FEATURES,))
    f, energy = calls("potential.pt", valid, (FEATURES, "energy"))
    x, per_atom = (v / np.array([[len(a)] for a in s]) for v, s in ((x, train), (f, valid)))
    inverse = np.linalg.inv(x.T @ x + ridge * np.eye(x.shape[1]))
    raw = np.sqrt(np.einsum("ni,ij,nj->n", f, inverse, f))
    errors = energy[:, 0] - [a.get_potential_energy() for a in valid]
    assert per_atom.shape == f.shape
    alpha = np.sqrt(np.mean((errors / raw) ** 2))

    predicted, sigma = calls("llpr.pt", valid, ("energy", "energy_uncertainty"))
    np.testing.assert_allclose(predicted, energy, rtol=1e-12)
    np.testing.assert_allclose(sigma[:, 0], alpha * raw, rtol=1e-4)
    # of atoms: with features that are not summed
    (g,) = calls("potential.pt", valid[:3], (FEATURES,), "atom")
    (of_atoms,) = calls("llpr.pt", valid[:3], ("energy_uncertainty",), "atom")
    wanted = alpha * np.sqrt(np.einsum("ni,ij,nj->n", g, inverse, g))
    np.testing.assert_allclose(of_atoms[:, 0], wanted, rtol=1e-4)
    # the same from the checkpoint, in Python
    assert result.checkpoint.exists()
    atomtrain.export("llpr.ckpt", output="again.pt")
    np.testing.assert_allclose(calls("again.pt", valid, ("energy_uncertainty",))[0], sigma)


def test_errors_of_the_atoms_of_a_crystal_are_one(place: Path) -> None:
    fit(place)
    atoms = ase.io.read("validation.xyz", 0)
    once, twice = calls("llpr.pt", [atoms, atoms.repeat((1, 2, 1))], ("energy_uncertainty",))[0]
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-8)


def test_an_ensemble_has_the_width(place: Path) -> None:
    fit(place, {"num_ensemble_members": 200})
    valid = ase.io.read("validation.xyz", ":")
    names = ("energy", "energy_uncertainty", "energy_ensemble")
    energy, sigma, members = calls("llpr.pt", valid, names)
    assert members.shape == (len(valid), 200)
    np.testing.assert_allclose(members.mean(1, keepdims=True), energy, rtol=1e-10)
    np.testing.assert_allclose(members.std(1, ddof=1), sigma[:, 0], rtol=0.2)
    (of_atoms,) = calls("llpr.pt", valid[:1], ("energy_ensemble",), "atom")
    np.testing.assert_allclose(of_atoms.sum(0), members[0], rtol=1e-10)


def test_eval_writes_and_judges_them(place: Path) -> None:
    fit(place, {"num_ensemble_members": {"energy": 4}})
    targets = {"energy": {"key": "energy", "unit": "eV"}}
    (found,) = atomtrain.evaluate(
        "llpr.pt", section("validation.xyz", targets), output="out.xyz", batch_size=5
    )
    # it was calibrated on these very structures
    assert found.reliability["energy"].ratio == pytest.approx(1.0)
    written = ase.io.read("out.xyz", ":")
    sigma = found.predictions["energy_uncertainty"][:, 0].numpy()
    np.testing.assert_allclose([a.info["energy_uncertainty"] for a in written], sigma, rtol=1e-6)
    # forces have the spread that finite differences of the members have
    atoms, step = ase.io.read("validation.xyz", 0), 1e-4
    moved = []
    for sign in (1, -1):
        moved.append(atoms.copy())
        moved[-1].positions[1, 2] += sign * step
    up, down = calls("llpr.pt", moved, ("energy_ensemble",))[0]
    spread = written[0].arrays["energy_forces_uncertainty"]
    assert spread.shape == (len(atoms), 3)
    assert spread[1, 2] == pytest.approx(((up - down) / (2 * step)).std(ddof=1), rel=1e-4)


def test_ase_warns_by_itself(place: Path) -> None:
    fit(place)
    atoms = ase.io.read("validation.xyz", 0)
    atoms.calc = MetatomicCalculator("llpr.pt", uncertainty_threshold=1e-9)
    with pytest.warns(UserWarning, match="atomic energy uncertainties are larger"):
        atoms.get_potential_energy()
    assert np.isfinite(atoms.get_forces()).all()


def test_uncertainties_move_if_they_are_to(place: Path) -> None:
    """Else they have no derivative, which is an error and not zero; forces are the same either way."""
    atoms = ase.io.read("validation.xyz", 0)
    slopes = {}
    for differentiable in (False, True):
        fit(place, {"differentiable": differentiable})
        model = load_model("llpr.pt")
        lists = model.requested_neighbor_lists()
        one = torch.tensor([0])
        systems, leaves = systems_of(
            store_of([atoms]), one, lists, "angstrom", torch.float64, "cpu", True
        )
        outputs = {n: ModelOutput(sample_kind="system") for n in ("energy", "energy_uncertainty")}
        found = model(systems, ModelEvaluationOptions("angstrom", outputs), check_consistency=True)
        energy, sigma = (found[name].block().values.sum() for name in outputs)
        (slopes[differentiable],) = torch.autograd.grad(energy, leaves[:1], retain_graph=True)
        assert sigma.requires_grad == differentiable
    torch.testing.assert_close(slopes[True], slopes[False])
    (slope,) = torch.autograd.grad(sigma, leaves[:1])
    moved, step = [], 1e-4
    for sign in (1, -1):
        moved.append(atoms.copy())
        moved[-1].positions[1, 2] += sign * step
    up, down = calls("llpr.pt", moved, ("energy_uncertainty",))[0][:, 0]
    assert float(slope[1, 2]) == pytest.approx((up - down) / (2 * step), rel=1e-4)


def test_another_reference_is_no_uncertainty(place: Path) -> None:
    assert "another reference" not in (fit(place).directory / "train.log").read_text()
    for name in ("train.xyz", "validation.xyz"):
        frames = ase.io.read(name, ":")
        for atoms in frames:
            atoms.calc.results["energy"] += 400.0 * len(atoms)
        ase.io.write(name, frames)
    log = (fit(place).directory / "train.log").read_text()
    assert re.search(r"energy: errors .* are [\d.e+]+ times as large .* another reference", log)


def test_what_cannot_be_is_said(place: Path) -> None:
    def said(error: type[AtomtrainError], **given: Any) -> str:
        with pytest.raises(error) as caught:
            fit(place, **given)
        return str(caught.value)

    no_validation = {"validation_set": 0.0}
    assert "validation_set: uncertainties get their size" in said(
        OptionsError, changes=no_validation
    )
    other = {"mtt::other": {"key": "number", "unit": "eV"}}
    sections = {
        "training_set": section("train.xyz", other),
        "validation_set": section("validation.xyz", other),
    }
    assert "'mtt::other': the model in model_checkpoint does not" in said(
        TargetError, changes=sections
    )
    vector = {"mtt::v": {"key": "one_hot", "type": {"cartesian": {"rank": 1}}}}
    sections = {part: section("train.xyz", vector) for part in sections}
    assert "llpr' cannot fit type 'cartesian'" in said(TargetError, changes=sections)
    assert "'enery' is no target; did you mean 'energy'?" in said(
        TargetError, model={"num_ensemble_members": {"enery": 4}}
    )
    assert "num_epochs: ensembles are drawn here" in said(OptionsError, num_epochs=10)
    assert "atomic_baseline: compositions and scales are" in said(
        OptionsError, atomic_baseline={"energy": 0.0}
    )
    assert "scale_targets: scales are those" in said(OptionsError, scale_targets=False)
    assert "model_checkpoint: give the path" in said(OptionsError, model_checkpoint=None)
    mine = {"energy": {**TARGETS["energy"], "head": {"hidden_dim": 4}}}
    sections = {part: section("train.xyz", mine) for part in sections}
    assert "leave out 'head' and 'pooling'" in said(TargetError, changes=sections)


def test_a_model_that_says_nothing_of_its_last_layer(place: Path) -> None:
    options = described("rings", {"num_epochs": 0})
    options["architecture"]["model"] = {"featureless": True}
    atomtrain.train(options, output="potential.pt")
    with pytest.raises(
        TargetError, match="does not say what its last layer takes; its architecture, rings"
    ):
        fit(place)


def test_metatrains_options_are_taken(place: Path) -> None:
    """What its trainer has for training ensembles further means nothing where there are no epochs."""
    fit(
        place,
        {"num_ensemble_members": {"energy": 3}},
        num_epochs=None,
        train_all_parameters=False,
        warmup_fraction=0.01,
        learning_rate=3e-4,
        weight_decay=None,
        log_interval=1,
        grad_clip_norm=1.0,
        min_atoms_per_batch=0,
        loss="gaussian_nll_ensemble",
        calibration_method="absolute_residuals",
        best_model_metric="loss",
    )
    saved = load_checkpoint(Path("llpr.ckpt"))
    assert saved["hypers"]["trainer"]["calibration_method"] == "absolute_residuals"
    weights = saved["model"]["last"]
    assert bool(torch.isfinite(weights["posteriors.energy.members"]).all())
