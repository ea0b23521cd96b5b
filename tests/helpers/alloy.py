"""Helpers of the tests that cross distributions: make data, write options, call the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator


def crystal(seed: int) -> Atoms:
    """A strained, shaken, skewed cell of Cu and Au with EMT energy, forces and stress."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.numbers[rng.integers(0, 4)] = 79
    strain = np.eye(3) + 0.03 * rng.normal(size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += 0.06 * rng.normal(size=atoms.positions.shape)
    atoms.calc = EMT()
    results = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def write_crystal(path: Path, n: int) -> list[Atoms]:
    """``n`` frames as extended xyz."""
    frames = [crystal(seed) for seed in range(n)]
    ase.io.write(path, frames, format="extxyz")
    return frames


def options(**changes: Any) -> dict[str, Any]:
    """Options of a training of seconds."""
    return {
        "seed": 1,
        "architecture": {
            "name": "soap-bpnn",
            "model": {
                "soap": {"max_angular": 3, "max_radial": 3, "cutoff": {"radius": 4.0}},
                "bpnn": {"num_neurons_per_layer": 8},
            },
            "training": {"num_epochs": 6, "batch_size": 4, "checkpoint_interval": 1},
        },
        "training_set": {
            "systems": {"read_from": "crystal.xyz", "length_unit": "angstrom"},
            "targets": {"energy": {"key": "energy", "unit": "eV", "forces": True, "stress": True}},
        },
        "validation_set": 0.2,
        "test_set": 0.2,
        **changes,
    }


def write_options(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump(options(**changes)))
