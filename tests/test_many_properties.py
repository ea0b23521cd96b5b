"""Densities of states with SOAP-BPNN: many masked properties, their own loss, packed batches."""

from __future__ import annotations

import csv
from pathlib import Path

import ase.io
import numpy as np
import pytest
from helpers.alloy import crystal, write_options

from atomtrain import api
from atomtrain.training.checkpoint import load_checkpoint

GRID = np.linspace(-2.0, 2.0, 41)


def test_densities_of_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frames = []
    for seed in range(20):
        atoms = crystal(seed)
        gold = int((atoms.numbers == 79).sum())
        dos = len(atoms) * np.exp(-((GRID - 0.4 * gold) ** 2) / 0.1)
        dos = np.roll(dos, rng.integers(-4, 5))  # the origin of energies means nothing
        dos[rng.integers(34, 41) :] = np.nan
        atoms.info["dos"] = dos
        atoms.info["dos_mask"] = np.isfinite(dos).astype(float) * (GRID > -1.9)
        atoms.calc = None
        frames.append(atoms)
    ase.io.write("dos.xyz", frames, format="extxyz")
    write_options(
        tmp_path / "options.yaml",
        architecture={
            "name": "soap-bpnn",
            "model": {
                "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 3.5}},
                "bpnn": {"num_neurons_per_layer": 8},
            },
            "training": {
                "num_epochs": 60,
                "learning_rate": 0.01,
                "max_atoms_per_batch": 16,
                "atomic_baseline": {"mtt::dos": 0.0},
                "best_model_metric": "loss",
                "loss": {
                    "mtt::dos": {
                        "type": "shift_agnostic_mse",
                        "grad_penalty_weight": 1e-4,
                        "int_weight": 2.0,
                        "grid_step": 0.1,
                    }
                },
            },
        },
        training_set={
            "systems": {"read_from": "dos.xyz", "length_unit": "angstrom"},
            "targets": {"mtt::dos": {"key": "dos", "num_subtargets": len(GRID)}},
            "extra_data": {"mtt::dos_mask": {"key": "dos_mask", "num_subtargets": len(GRID)}},
        },
    )
    result = api.train("options.yaml")
    with open(result.directory / "train.csv", encoding="utf-8") as file:
        losses = [float(row["validation loss"]) for row in csv.DictReader(file)]
    assert min(losses) < 0.2 * losses[0]
    saved = load_checkpoint(result.checkpoint)
    assert saved["trainer"]["best_epoch"] == int(np.argmin(losses))
    outputs = api.load(result.model).capabilities().outputs
    assert "mtt::dos" in outputs
