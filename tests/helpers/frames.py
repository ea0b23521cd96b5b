"""Structures of awkward kinds, with labels where asked for, and options that read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.singlepoint import SinglePointCalculator

from atomtrain.data import Datasets, build_datasets
from atomtrain.options import load_options


def labelled(seed: int, n: int = 3, pbc: Any = True, **results: Any) -> Atoms:
    """A box of silicon; ``results`` replace its energy, forces, stress (None: leave it out)."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(
        f"Si{n}", rng.normal(size=(n, 3)), cell=[[4, 0, 0], [1, 5, 0], [0, -1, 6]], pbc=pbc
    )
    found = {
        "energy": float(seed),
        "forces": rng.normal(size=(n, 3)),
        "stress": rng.normal(size=6),
        **results,
    }
    atoms.calc = SinglePointCalculator(atoms, **{k: v for k, v in found.items() if v is not None})
    return atoms


def awkward() -> dict[str, Atoms]:
    """Structures that break careless neighbour lists."""
    rng = np.random.default_rng(0)
    pair = [[0, 0, 0], [1, 1, 1.0]]
    return {
        "one atom": Atoms("H"),
        "no pairs": Atoms("HO", [[0, 0, 0], [30, 0, 0]]),
        "cell smaller than the cutoff": bulk("Cu"),
        "skewed": Atoms(
            "SiCO", rng.normal(size=(3, 3)), cell=[[3, 0, 0], [4, 2, 0], [1, -3, 5]], pbc=True
        ),
        "left-handed": Atoms("SiC", pair, cell=[[0, 3, 0], [3, 0, 0], [0, 0, 3.3]], pbc=True),
        "slab": fcc111("Al", (1, 1, 2), vacuum=5.0),
        "slab without third vector": Atoms(
            "SiC", pair, cell=[[3, 0, 0], [1, 3, 0], [0, 0, 0]], pbc=[1, 1, 0]
        ),
        "wire": Atoms("SiC", pair, cell=[[0, 0, 0], [0, 3, 1], [0, 0, 0]], pbc=[0, 1, 0]),
        "outside the cell": Atoms("SiC", [[0, 0, 0], [100, -50, 31]], cell=[4, 4, 4], pbc=True),
        "far outside the cell": Atoms("SiC", [[0, 0, 0], [8e4, 0.5, 1]], cell=[4, 4, 4], pbc=True),
    }


def section(path: str, **energy: Any) -> dict[str, Any]:
    """A section of the options with one target, the energy."""
    return {"systems": path, "targets": {"energy": energy}}


def build(training: Any, validation: Any = 0.25, **rest: Any) -> Datasets:
    """Write options to the working directory and build what they name."""
    options = {
        "architecture": {"name": "any"},
        "training_set": training,
        "validation_set": validation,
        **rest,
    }
    Path("options.yaml").write_text(yaml.safe_dump(options))
    return build_datasets(load_options("options.yaml"))
