"""Which weights are the best: where an error is zero from the start, and where the data change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.alloy import options, write_crystal

from atomtrain import api
from atomtrain.training.checkpoint import load_checkpoint


def labelled(atoms: Atoms, **results: Any) -> Atoms:
    """With EMT's results, or these instead."""
    atoms.calc = EMT()
    found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), **results}
    atoms.calc = SinglePointCalculator(atoms, **found)
    return atoms


def train(folder: Path, restart: Path | None = None, **changes: Any) -> dict[str, Any]:
    """The checkpoint of a training of ``crystal.xyz`` in ``folder``."""
    given = options(test_set=0.0)
    targets = given["training_set"]["targets"]["energy"]
    targets["stress"] = False
    given["architecture"]["training"].update(changes.pop("training", {}))
    given.update(changes)
    (folder / "options.yaml").write_text(yaml.safe_dump(given))
    done = api.train(folder / "options.yaml", restart=restart)
    return load_checkpoint(done.checkpoint)


def energy_error(checkpoint: dict[str, Any]) -> float:
    """That of the best weights on validation, eV/atom."""
    return float(checkpoint["metrics"]["best_errors"]["energy"]["rmse"])


@pytest.mark.parametrize("metric", ["rmse_prod", "mae_prod"])
def test_forces_that_are_zero_by_symmetry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    """An equation of state: forces have no error in any epoch, energies decide."""
    monkeypatch.chdir(tmp_path)
    frames = []
    for k in range(30):
        atoms = bulk("Cu", "fcc", a=3.5 + 0.015 * k)
        frames.append(labelled(atoms, forces=np.zeros((1, 3))))
    ase.io.write("crystal.xyz", frames)
    training = {"num_epochs": 15, "best_model_metric": metric, "early_stopping_patience": 10,
                "learning_rate": 0.02}  # fmt: skip
    checkpoint = train(tmp_path, training=training)
    assert checkpoint["trainer"]["best_epoch"] >= 5
    assert checkpoint["trainer"]["epoch"] == 15
    assert energy_error(checkpoint) < 0.05  # 0.098 before training


def test_a_constant_label_does_not_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second target whose labels are all zero."""
    monkeypatch.chdir(tmp_path)
    frames = write_crystal(Path("crystal.xyz"), 20)
    for atoms in frames:
        atoms.info["nothing"] = 0.0
    ase.io.write("crystal.xyz", frames)
    given = options()["training_set"]
    given["targets"]["mtt::nothing"] = {"key": "nothing"}
    checkpoint = train(tmp_path, training={"num_epochs": 12}, training_set=given)
    assert checkpoint["trainer"]["best_epoch"] >= 4


def test_restarted_on_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score reached on easy structures is none to be beaten on hard ones."""
    monkeypatch.chdir(tmp_path)
    easy = [labelled(bulk("Cu", "fcc", a=3.6 + 0.001 * k, cubic=True)) for k in range(20)]
    ase.io.write("crystal.xyz", easy)
    first = train(tmp_path, training={"num_epochs": 4})
    hard = []
    for k in range(20):
        atoms = bulk("Cu", "fcc", a=3.3 + 0.03 * k, cubic=True)
        atoms.rattle(0.15, seed=k)
        hard.append(labelled(atoms))
    ase.io.write("crystal.xyz", [*easy, *hard])
    path = next(tmp_path.glob("outputs/*/*/model.ckpt"))
    training = {"num_epochs": 16, "early_stopping_patience": 8}
    second = train(tmp_path, restart=path, training=training)
    assert first["trainer"]["judged_by"] != second["trainer"]["judged_by"]
    assert second["trainer"]["best_epoch"] > 4
    # the score is one of the new validation set, which the old one could never have been
    assert second["trainer"]["best_score"] > first["trainer"]["best_score"]
    assert energy_error(second) > energy_error(first)


def test_restarted_with_nothing_left_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors told of the best model are those on today's validation set."""
    monkeypatch.chdir(tmp_path)
    write_crystal(Path("crystal.xyz"), 16)
    first = train(tmp_path, training={"num_epochs": 3})
    path = next(tmp_path.glob("outputs/*/*/model.ckpt"))
    same = train(tmp_path, restart=path, training={"num_epochs": 3})
    assert same["metrics"] == first["metrics"]
    write_crystal(Path("other.xyz"), 40)
    ase.io.write("other.xyz", ase.io.read("other.xyz", "20:"))
    other = {"systems": "other.xyz", "targets": options()["training_set"]["targets"]}
    other["targets"]["energy"]["stress"] = False
    again = train(tmp_path, restart=path, training={"num_epochs": 3}, validation_set=other)
    assert again["trainer"]["best_epoch"] == first["trainer"]["best_epoch"]
    assert again["metrics"]["best_errors"] != first["metrics"]["best_errors"]
    assert again["trainer"]["best_score"] == again["metrics"]["best_score"]
    assert again["trainer"]["best_score"] != first["trainer"]["best_score"]
