"""The trainer's hypers end to end, on an architecture of tables that fits every kind of target."""

from __future__ import annotations

import copy
import csv
import logging
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from helpers.installing import install
from helpers.structures import graph_of

from atomtrain import api
from atomtrain.errors import AtomtrainError, CheckpointError
from atomtrain.plugins.restore import restore
from atomtrain.training.checkpoint import load_checkpoint

IRREPS = [{"o3_lambda": 0, "o3_sigma": 1}, {"o3_lambda": 1, "o3_sigma": 1, "num": 2}]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    install(folder, "tables", target="tables_arch")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def frames(n: int = 12) -> list[Atoms]:
    """Molecules of H and O of 2 to 5 atoms with labels of every kind."""
    rng = np.random.default_rng(7)
    made = []
    for _ in range(n):
        size = int(rng.integers(2, 6))
        atoms = Atoms(numbers=rng.choice([1, 8], size), positions=rng.normal(size=(size, 3)))
        h, o = (atoms.numbers == 1).sum(), (atoms.numbers == 8).sum()
        atoms.info["energy"] = float(-3.0 * h - 20.0 * o + 0.1 * rng.normal())
        atoms.info["gap"] = float(rng.normal())
        atoms.info["dos"] = h * np.array([1.0, 2, 3, 0, 0, 0]) + 0.1 * rng.random(6)
        atoms.info["dos_mask"] = (np.arange(6) < rng.integers(4, 7)).astype(float)
        atoms.info["tensor"] = np.concatenate(
            [[2.0 * h + 5.0 * o], 30.0 * rng.normal(size=6)]
        ) + 0.1 * rng.normal(size=7)
        atoms.arrays["q"] = np.where(atoms.numbers == 1, 0.5, -1.0) * (
            1 + 0.1 * rng.normal(size=size)
        )
        made.append(atoms)
    return made


TARGETS: dict[str, Any] = {
    "energy": {"unit": "eV", "forces": False, "stress": False},
    "mtt::gap": {"key": "gap"},
    "mtt::dos": {"key": "dos", "num_subtargets": 6},
    "mtt::tensor": {"key": "tensor", "type": {"spherical": {"irreps": IRREPS}}},
    "mtt::charge": {"key": "q", "per_atom": True},
}


def train(folder: Path, targets: list[str], made: list[Atoms] | None = None, **changes: Any) -> Any:
    """Train on some of the targets; ``changes`` are hypers, or ``extra_data``."""
    ase.io.write(folder / "data.xyz", frames() if made is None else made, format="extxyz")
    section: dict[str, Any] = {
        "systems": "data.xyz",
        "targets": {n: copy.deepcopy(TARGETS[n]) for n in targets},
    }
    if "extra_data" in changes:
        section["extra_data"] = changes.pop("extra_data")
    options = {
        "seed": 3,
        "base_precision": 64,
        "architecture": {
            "name": "tables",
            "training": {"num_epochs": 2, "batch_size": 3, "log_interval": 1, **changes},
        },
        "training_set": section,
        "validation_set": 0.25,
    }
    (folder / "options.yaml").write_text(yaml.safe_dump(options))
    return api.train("options.yaml")


def affine(result: Any, target: str) -> dict[str, np.ndarray]:
    """Shift, scale and reference of a target in the checkpoint of a run."""
    return affine_in(result.checkpoint, target)


def affine_in(path: Path, target: str) -> dict[str, np.ndarray]:
    saved = load_checkpoint(path)
    prefix = f"affine.{list(saved['dataset_info']['targets']).index(target)}."
    return {
        name.removeprefix(prefix): values.numpy()
        for name, values in saved["core"]["affine"].items()
        if name.startswith(prefix)
    }


def trained_on(result: Any) -> list[Atoms]:
    """The training structures of a run."""
    splits = load_checkpoint(result.checkpoint)["splits"]["train"][0]
    return [frames()[k] for k in splits]


def counts(some: list[Atoms]) -> np.ndarray:
    return np.array([[(a.numbers == z).sum() for z in (1, 8)] for a in some], dtype=float)


def rows(result: Any) -> list[dict[str, str]]:
    with open(result.directory / "train.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- baselines and scales ------------------------------------------------------------------------


def test_fitted_baselines_and_scales(site: Path) -> None:
    result = train(site, list(TARGETS))
    some = trained_on(result)
    c, n = counts(some), counts(some).sum(1)
    energy = np.array([a.info["energy"] for a in some])
    found = affine(result, "energy")
    shift = np.linalg.solve(c.T @ c, c.T @ energy)
    assert found["shift"][:, 0] == pytest.approx(shift, abs=1e-8)
    scale = np.sqrt(np.mean(((energy - c @ shift) / n) ** 2))
    assert found["scale"][:, 0] == pytest.approx(scale) == pytest.approx(found["reference"])

    dos = np.array([a.info["dos"] for a in some])
    found = affine(result, "mtt::dos")
    shift = np.linalg.solve(c.T @ c, c.T @ dos)
    assert found["shift"] == pytest.approx(shift, abs=1e-8)
    left = (dos - c @ shift) / n[:, None]
    assert found["reference"] == pytest.approx(np.sqrt(np.mean(left**2)))
    assert found["scale"][0] == pytest.approx(np.sqrt(np.mean(left**2, axis=0)))

    tensor = np.array([a.info["tensor"] for a in some])
    found = affine(result, "mtt::tensor")
    shift = np.linalg.solve(c.T @ c, c.T @ tensor[:, 0])
    assert found["shift"][:, 0] == pytest.approx(shift, abs=1e-8)
    assert np.all(found["shift"][:, 1:] == 0)  # nothing but the invariant part has a baseline
    left = tensor.copy()
    left[:, 0] -= c @ shift
    left /= n[:, None]
    assert found["reference"] == pytest.approx(np.sqrt(np.mean(left**2)))
    vectors = left[:, 1:].reshape(-1, 3, 2)
    sizes = [np.sqrt(np.mean(left[:, 0] ** 2)), *np.sqrt(np.mean(vectors**2, axis=(0, 1)))]
    assert found["scale"][1] == pytest.approx(np.array(sizes))

    numbers = np.concatenate([a.numbers for a in some])
    charge = np.concatenate([a.arrays["q"] for a in some])
    found = affine(result, "mtt::charge")
    for k, z in enumerate((1, 8)):
        mean = charge[numbers == z].mean()
        assert found["shift"][k, 0] == pytest.approx(mean)
        size = np.sqrt(np.mean((charge[numbers == z] - mean) ** 2))
        assert found["scale"][k, 0] == pytest.approx(size)


def test_fixed_baselines(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train(
        site,
        ["energy", "mtt::dos", "mtt::charge", "mtt::tensor"],
        atomic_baseline={"energy": {"H": -2.5, "Au": 3.0}, "mtt::dos": 0, "mtt::charge": {8: -1.0},
                         "mtt::tensor": {1: 2.0, 8: 5.0}},
    )  # fmt: skip
    said = "atomic_baseline.energy: Au is not used, the model is for H, O"
    assert [r.levelname for r in caplog.records if said in r.message] == ["WARNING"]
    some = trained_on(result)
    c = counts(some)
    energy = np.array([a.info["energy"] for a in some])
    oxygen = ((energy + 2.5 * c[:, 0]) @ c[:, 1]) / (c[:, 1] @ c[:, 1])
    assert affine(result, "energy")["shift"][:, 0] == pytest.approx([-2.5, oxygen])
    assert np.all(affine(result, "mtt::dos")["shift"] == 0)
    charges = np.concatenate([a.arrays["q"][a.numbers == 1] for a in some])
    assert affine(result, "mtt::charge")["shift"][:, 0] == pytest.approx([charges.mean(), -1.0])
    assert affine(result, "mtt::tensor")["shift"][:, 0].tolist() == [2.0, 5.0]
    assert np.all(affine(result, "mtt::tensor")["shift"][:, 1:] == 0)


def test_masked_many_property_baseline(site: Path) -> None:
    mask = {"mtt::dos_mask": {"key": "dos_mask", "num_subtargets": 6}}
    loss = {"mtt::dos": {"type": "masked_mse"}}
    result = train(site, ["mtt::dos"], extra_data=mask, loss=loss)
    some = trained_on(result)
    c = counts(some)
    dos = np.array([a.info["dos"] for a in some])
    there = np.array([a.info["dos_mask"] for a in some]) > 0
    for k in range(6):
        here = there[:, k]
        fit = np.linalg.lstsq(c[here], dos[here, k], rcond=None)[0]
        assert affine(result, "mtt::dos")["shift"][:, k] == pytest.approx(fit, abs=1e-8)


def test_fixed_scales(site: Path) -> None:
    result = train(
        site, ["energy", "mtt::charge", "mtt::dos"],
        fixed_scaling_weights={"energy": 0.25, "mtt::charge": {"O": 3.0}, "mtt::dos": 2.0},
    )  # fmt: skip
    assert affine(result, "energy")["scale"].tolist() == [[0.25], [0.25]]
    charge = affine(result, "mtt::charge")
    charges = np.concatenate([a.arrays["q"][a.numbers == 1] for a in trained_on(result)])
    assert charge["scale"][:, 0] == pytest.approx([charges.std(), 3.0])
    dos = affine(result, "mtt::dos")
    assert dos["reference"].tolist() == [2.0, 2.0]
    none = train(site, ["energy", "mtt::dos"], scale_targets=False)
    assert np.all(affine(none, "energy")["scale"] == 1) and np.all(
        affine(none, "mtt::dos")["scale"] == 1
    )
    # how large each property is beside the others does not depend on the common scale
    fitted = affine(train(site, ["mtt::dos"]), "mtt::dos")
    assert dos["scale"] == pytest.approx(fitted["scale"])


def test_totals(site: Path) -> None:
    per_atom = train(site, ["mtt::gap"], num_epochs=1)
    totals = train(site, ["mtt::gap"], per_structure_targets=["mtt::gap"], num_epochs=1)
    some = trained_on(totals)
    c = counts(some)
    gap = np.array([a.info["gap"] for a in some])
    left = gap - c @ np.linalg.lstsq(c, gap, rcond=None)[0]
    assert affine(totals, "mtt::gap")["reference"][0] == pytest.approx(np.sqrt(np.mean(left**2)))
    assert "training gap RMSE" in rows(totals)[0]
    assert "training gap (per atom) RMSE" in rows(per_atom)[0]
    # errors of totals, by hand from the predictions of atoms
    predictor = restore(load_checkpoint(totals.checkpoint), "export").predictor
    graph = graph_of(some, cutoff=3.0)
    atoms = predictor(graph, ["mtt::gap"])["mtt::gap"][0].detach().numpy()[:, 0]
    predicted = np.bincount(graph.structure.numpy(), atoms)
    rmse = np.sqrt(np.mean((predicted - gap) ** 2))
    assert totals.errors["training"]["mtt::gap"]["rmse"] == pytest.approx(rmse, rel=1e-6)


def test_baselines_of_a_checkpoint(site: Path) -> None:
    first = train(
        site, ["energy", "mtt::charge"], atomic_baseline={"energy": {1: -1.0, 8: -9.0}},
        fixed_scaling_weights={"energy": 0.5},
    )  # fmt: skip
    assert affine(first, "energy")["scale"][0, 0] == 0.5
    (site / "model.ckpt").rename(site / "base.ckpt")
    both = train(
        site, ["mtt::charge", "energy"],
        atomic_baseline="base.ckpt", fixed_scaling_weights="base.ckpt",
    )  # fmt: skip
    for target in ("mtt::charge", "energy"):
        for name, values in affine(both, target).items():
            assert np.array_equal(values, affine_in(site / "base.ckpt", target)[name])
    shift_only = train(site, ["energy"], atomic_baseline="base.ckpt")
    assert affine(shift_only, "energy")["shift"][:, 0].tolist() == [-1.0, -9.0]
    assert affine(shift_only, "energy")["scale"][0, 0] != 0.5
    (site / "model.ckpt").rename(site / "other.ckpt")
    apart = {"atomic_baseline": "base.ckpt", "fixed_scaling_weights": "other.ckpt"}
    two = affine(train(site, ["energy"], **apart), "energy")
    assert two["shift"][:, 0].tolist() == [-1.0, -9.0]
    assert two["scale"][0, 0] == affine_in(site / "other.ckpt", "energy")["scale"][0, 0]
    with pytest.raises(CheckpointError, match=r"fixed_scaling_weights: there is no .*'gone\.ckpt'"):
        train(site, ["energy"], **{**apart, "fixed_scaling_weights": "gone.ckpt"})
    with pytest.raises(AtomtrainError, match=r"'base.ckpt' has no target 'mtt::gap'"):
        train(site, ["mtt::gap"], atomic_baseline="base.ckpt")


def test_restart_and_finetune_keep_them(site: Path) -> None:
    fixed = {
        "atomic_baseline": {"energy": {1: -1.0, 8: -9.0}},
        "fixed_scaling_weights": {"energy": 0.5},
    }
    first = train(site, ["energy"], **fixed)
    before = affine(first, "energy")
    (site / "model.ckpt").rename(site / "base.ckpt")
    again = api.train(
        "options.yaml", restart="base.ckpt", overrides=["architecture.training.num_epochs=3"]
    )
    for name, values in affine(again, "energy").items():
        assert np.array_equal(values, before[name])
    moved = frames()
    for atoms in moved:
        atoms.info["energy"] += 100.0 * len(atoms)
    finetune = {"finetune": {"read_from": "base.ckpt"}}
    fitted = affine(train(site, ["energy"], moved, **finetune), "energy")
    assert fitted["shift"][:, 0] == pytest.approx([97.0, 80.0], abs=1.0)
    assert fitted["scale"].tolist() == before["scale"].tolist()
    given = affine(
        train(site, ["energy"], moved, **finetune, atomic_baseline={"energy": {"O": 81.5}}),
        "energy",
    )
    assert given["shift"][1, 0] == 81.5
    assert given["shift"][0, 0] == pytest.approx(97.0, abs=3.0)


@pytest.mark.parametrize(
    ("hypers", "message"),
    [
        ({"atomic_baseline": "no.ckpt"},
         r"options.yaml:\d+: architecture.training.atomic_baseline: there is no checkpoint 'no.c"),
        ({"atomic_baseline": "options.yaml"}, "is not a checkpoint"),
        ({"finetune": {"read_from": "no.ckpt"}}, r"finetune.read_from: there is no checkpoint"),
        ({"atomic_baseline": {"energy": {"Xy": 1.0}}}, "atomic_baseline.energy.Xy: .*'Xy'"),
        ({"fixed_scaling_weights": {"energy": {"Q": 1.0}}}, "fixed_scaling_weights.energy.Q: "),
        ({"atomic_baseline": {"enrgy": 1.0}}, "no such target; did you mean 'energy'"),
        ({"fixed_scaling_weights": {"energy": 0.0}}, "must be greater than 0"),
        ({"fixed_scaling_weights": {"energy": {1: 2.0}}}, "has one scale for all types"),
        ({"atomic_baseline": {"mtt::dipole": 1.0}}, "dipole: changes under rotations"),
        ({"per_structure_targets": ["enrgy"]}, "no target 'enrgy'; did you mean 'energy'"),
        ({"max_atoms_per_batch": 9, "min_atoms_per_batch": 10}, "must be at most max_atoms"),
        ({"max_atoms_per_batch": 9, "batch_atom_bounds": [1, None]}, "keep one"),
        ({"loss": {"energy": {"type": "shift_agnostic_mse", "int_weight": 1.0,
                              "grad_penalty_weight": 1.0}}}, "a grid of at least 5 points"),
        ({"loss": {"mtt::dipole": "masked_mae"}}, "needs extra_data called 'mtt::dipole_mask'"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_data_are_read(
    site: Path, hypers: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("data were read")

    monkeypatch.setattr(ase.io, "read", read)
    monkeypatch.setitem(TARGETS, "mtt::dipole", {"type": {"cartesian": {"rank": 1}}})
    with pytest.raises(AtomtrainError, match=message):
        train(site, ["energy", "mtt::dipole"], **hypers)
    assert not list(site.glob("outputs/*/*"))


# -- logging, batches, the best model ------------------------------------------------------------


def test_separate_blocks(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "atomtrain")
    result = train(site, ["energy", "mtt::tensor"], log_separate_blocks=True, log_mae=True)
    text = caplog.text
    assert (
        "tensor (l=1, s=1) (per atom) RMSE" in text and "tensor (l=0, s=1) (per atom) MAE" in text
    )
    last = rows(result)[-1]
    whole = float(last["validation tensor (per atom) RMSE"])
    scalar = float(last["validation tensor (l=0, s=1) (per atom) RMSE"])
    vector = float(last["validation tensor (l=1, s=1) (per atom) RMSE"])
    assert 7 * whole**2 == pytest.approx(scalar**2 + 6 * vector**2)
    assert "validation energy (l=0, s=1) RMSE [meV/atom]" not in last
    final = result.errors["training"]
    assert final["mtt::tensor (l=1, s=1)"]["count"] == 6 * final["mtt::tensor (l=0, s=1)"]["count"]
    # the same model is the best one with and without
    score = load_checkpoint(result.checkpoint)["trainer"]["best_score"]
    plain = train(site, ["energy", "mtt::tensor"])
    assert load_checkpoint(plain.checkpoint)["trainer"]["best_score"] == score
    assert not any("l=1" in name for name in rows(plain)[0])


@pytest.mark.parametrize("metric", ["rmse_prod", "mae_prod", "loss"])
def test_best_model_metric(site: Path, metric: str) -> None:
    result = train(
        site, ["energy", "mtt::charge"],
        best_model_metric=metric, num_epochs=8, learning_rate=0.3,
    )  # fmt: skip
    columns = {
        "loss": ["validation loss"],
        "rmse_prod": ["validation energy RMSE [meV/atom]", "validation charge RMSE"],
        "mae_prod": ["validation energy MAE [meV/atom]", "validation charge MAE"],
    }[metric]
    values = [np.prod([float(row[c]) for c in columns]) for row in rows(result)]
    saved = load_checkpoint(result.checkpoint)
    assert saved["trainer"]["best_epoch"] == int(np.argmin(values))
    factor = 1e-3 if metric != "loss" else 1.0
    assert saved["trainer"]["best_score"] == pytest.approx(min(values) * factor, rel=1e-6)


def test_bounds(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "atomtrain")
    result = train(site, ["energy"], batch_size=1, batch_atom_bounds=[3, "None"])
    some = trained_on(result)
    small = sum(len(a) < 3 for a in some)
    assert 0 < small < len(some)
    assert (
        f"{small} of {len(some)} training structures are skipped in the first epoch" in caplog.text
    )
    caplog.clear()
    result = train(site, ["energy"], max_atoms_per_batch=4, min_atoms_per_batch=2)
    large = sum(len(a) > 4 for a in trained_on(result))
    assert large and f"{large} of {len(some)} training structures have more atoms" in caplog.text
    with pytest.raises(AtomtrainError, match="no training batch is left"):
        train(site, ["energy"], batch_atom_bounds=[1000, None])


def test_density_of_states(site: Path) -> None:
    loss = {"mtt::dos": {"type": "shift_agnostic_mse", "grad_penalty_weight": 1e-4,
                         "int_weight": 2.0}}  # fmt: skip
    mask = {"mtt::dos_mask": {"key": "dos_mask", "num_subtargets": 6}}
    result = train(
        site, ["mtt::dos"], extra_data=mask, loss=loss, atomic_baseline={"mtt::dos": 0.0},
        num_epochs=40, learning_rate=0.03, best_model_metric="loss",
    )  # fmt: skip
    losses = [float(row["training loss"]) for row in rows(result)]
    assert losses[-1] < 0.3 * losses[0]


# -- extra data ----------------------------------------------------------------------------------


def test_a_missing_mask_masks_and_other_extra_data_may_not_be_missing(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atomtrain")
    made = frames()
    for k in (2, 5):
        del made[k].info["dos_mask"]
    mask = {"mtt::dos_mask": {"key": "dos_mask", "num_subtargets": 6, "allow_missing": True}}
    loss = {"mtt::dos": "masked_mse"}
    result = train(site, ["mtt::dos"], made, extra_data=mask, loss=loss)
    assert "'mtt::dos_mask' is missing for 2 of 12 structures" in caplog.text
    splits = load_checkpoint(result.checkpoint)["splits"]["train"][0]
    there = sum(made[k].info["dos_mask"].sum() for k in splits if k not in (2, 5))
    assert result.errors["training"]["mtt::dos"]["count"] == there
    with pytest.raises(AtomtrainError, match="only masks may be missing"):
        train(
            site, ["energy"], made,
            extra_data={"dos_mask": {"num_subtargets": 6, "allow_missing": True}},
        )  # fmt: skip
