"""Data with classes, options of a classifier: what its tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk

from atomtrain.api import TrainingResult

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


def section(file: str, targets: dict[str, Any]) -> dict[str, Any]:
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
        "training_set": section("train.xyz", targets),
        "validation_set": section("validation.xyz", targets),
        "test_set": 0.0,
    }


Run = Callable[..., TrainingResult]
