"""A training of a second on an architecture of tables, for tests of who watches it."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms

from atomtrain import api
from helpers.installing import install


def write_data(path: Path) -> None:
    """Twelve molecules of H and O with an energy and a vector per atom, extended xyz."""
    rng = np.random.default_rng(3)
    frames = []
    for k in range(12):
        n = 2 + k % 3
        atoms = Atoms(numbers=rng.choice([1, 8], n), positions=rng.normal(size=(n, 3)))
        atoms.info["energy"] = float(rng.normal())
        atoms.arrays["way"] = rng.normal(size=(n, 3))
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


def train(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str = "",
    *,
    restart: str | None = None,
    **options: Any,
) -> api.TrainingResult:
    """Train for three epochs in ``folder``.

    ``package`` brings components; where it is only on the path, it is installed beside.
    """
    site = folder / "site"
    install(site, "tables", target="tables_arch")
    module = f"{package}.plugin"
    if package and module not in {p.value for p in entry_points(group="atomtrain.components")}:
        name = package.replace("_", "-")
        install(site, name, group="atomtrain.components", entry=package, target=module)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(folder)
    write_data(folder / "data.xyz")
    target = {"unit": "eV", "forces": False, "stress": False}
    values = {
        "architecture": {"name": "tables", "training": {"num_epochs": 3, "batch_size": 3}},
        "training_set": {"systems": "data.xyz", "targets": {"energy": target}},
        "validation_set": 0.25,
        **options,
    }
    (folder / "options.yaml").write_text(yaml.safe_dump(values))
    return api.train("options.yaml", restart=restart)
