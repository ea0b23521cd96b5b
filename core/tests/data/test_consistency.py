"""Forces are held against energies: in structures that are alike, whatever set they went to."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from atomtrain.data import build_datasets
from atomtrain.data.consistency import fit, named_factor
from atomtrain.options import load_options

BONDS = [(0, 1), (0, 2), (1, 2), (2, 3), (1, 3), (0, 3)]


def springs(r: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy and forces of four atoms on springs that are not quite harmonic."""
    energy, forces = 0.0, np.zeros_like(r)
    for i, j in BONDS:
        v = r[i] - r[j]
        d = float(np.linalg.norm(v))
        energy += 5 * (d - 1.5) ** 2 - 2 * (d - 1.5) ** 3
        pull = (-10 * (d - 1.5) + 6 * (d - 1.5) ** 2) * v / d
        forces[i] += pull
        forces[j] -= pull
    return energy, forces


def write(
    path: Path, energy_scale: float = 1.0, forces_scale: float = 1.0, cell: bool = False
) -> None:
    """Snapshots far from their neighbours in the file, turned anyhow; or frames of a crystal's cell, close."""
    rng = np.random.default_rng(5)
    start = np.array([[0, 0, 0], [1.5, 0, 0], [0.7, 1.3, 0], [0.7, 0.4, 1.3]])
    frames = []
    for _ in range(60):
        r = start + rng.normal(scale=0.08, size=(4, 3))
        energy, forces = springs(r)
        atoms = Atoms("CHON", r + 5, cell=[20, 20, 20] if cell else None, pbc=cell)
        atoms.calc = SinglePointCalculator(
            atoms, energy=-50 + energy_scale * energy, forces=forces_scale * forces
        )
        if not cell:
            turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            turned *= np.linalg.det(turned)
            atoms.positions = atoms.positions @ turned
            atoms.calc.results["forces"] = atoms.calc.results["forces"] @ turned
        frames.append(atoms)
    ase.io.write(path, frames)


def warnings(folder: Path, unit: str = "eV") -> list[str]:
    section = {
        "systems": str(folder / "a.xyz"),
        "targets": {"energy": {"unit": unit, "stress": False}},
    }
    options = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": section,
        "validation_set": 0.3,
    }
    found = build_datasets(load_options(options)).warnings
    return [text for text in found if "work of the forces" in text]


@pytest.mark.parametrize("cell", [False, True])
def test_forces_that_do_not_belong_to_energies_are_warned_of(tmp_path: Path, cell: bool) -> None:
    write(tmp_path / "a.xyz", cell=cell)
    assert warnings(tmp_path) == []
    write(tmp_path / "a.xyz", forces_scale=-1, cell=cell)
    (said,) = warnings(tmp_path)
    assert said.startswith("training set: 'energy': energies change by -") and "wrong sign" in said
    write(tmp_path / "a.xyz", energy_scale=units.mol / units.kcal, cell=cell)
    (said,) = warnings(tmp_path)
    assert "energies are in kcal/mol, forces in eV/angstrom" in said
    assert len(warnings(tmp_path, "kcal/mol")) == 1  # forces are read in the same unit then
    assert "forces are in eV/angstrom, energies in kcal/mol" in warnings(tmp_path, "kcal/mol")[0]


@pytest.mark.parametrize(
    "factor, energy, length, words",
    [
        (1 / units.Bohr, "hartree", "angstrom", "forces are in hartree/bohr"),
        (1 / units.Bohr, "", "", "energies are in hartree, forces in hartree/bohr"),
        (units.Bohr, "eV", "angstrom", "positions are in bohr"),
        (-units.Hartree / units.Bohr, "eV", "angstrom", "forces are in hartree/bohr"),
        (0.1, "eV", "angstrom", "forces are in eV/nm"),
    ],
)
def test_a_factor_is_named(factor: float, energy: str, length: str, words: str) -> None:
    assert words in ", ".join(named_factor(factor, 0.01, energy, length))


def test_a_factor_is_believed_only_where_it_explains() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    y = -3 * x + 0.1 * rng.normal(size=100)
    y[:8] = 100 * rng.normal(size=8)
    y[9] = np.nan
    found = fit(y, x)
    assert found.believed and abs(found.factor + 3) < 0.1 and found.pairs == 99
    assert not fit(rng.normal(size=100), x).believed
    assert not fit(y[10:16], x[10:16]).believed
    assert not fit(np.zeros(20), x[:20]).believed
