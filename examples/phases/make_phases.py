"""Copper in four crystal structures, shaken, strained and with vacancies; energies from ASE's EMT.

Writes ``train.xyz``, ``test.xyz`` (another seed, stronger noise) and, to see where a classifier
breaks, ``noise_<sigma>.xyz`` for a series of noises. A length of noise is the standard deviation of
the displacement along each axis, in angstrom.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

NEAREST = 2.56  # distance of nearest neighbours in copper, angstrom
TRAIN_NOISE = (0.02, 0.12)
TEST_NOISE = (0.12, 0.18)
SERIES = (0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40)
MAX_STRAIN = 0.03
MAX_VACANCIES = 2


def perfect(phase: str) -> Atoms:
    """A cell of 32 to 64 atoms."""
    if phase == "fcc":
        return bulk("Cu", "fcc", a=NEAREST * 2**0.5, cubic=True).repeat(2)
    if phase == "bcc":
        return bulk("Cu", "bcc", a=NEAREST * 2 / 3**0.5, cubic=True).repeat(3)
    if phase == "hcp":
        cell = bulk("Cu", "hcp", a=NEAREST, c=NEAREST * (8 / 3) ** 0.5, orthorhombic=True)
        return cell.repeat((3, 2, 2))
    return bulk("Cu", "diamond", a=NEAREST * 4 / 3**0.5, cubic=True).repeat(2)


def damaged(phase: str, noise: float, rng: np.random.Generator) -> Atoms:
    """One structure: strained, shaken, with up to two atoms missing, and compressed or not."""
    atoms = perfect(phase)
    strain = np.eye(3) + rng.uniform(-MAX_STRAIN, MAX_STRAIN, (3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    del atoms[rng.choice(len(atoms), rng.integers(0, MAX_VACANCIES + 1), replace=False)]
    atoms.positions += noise * rng.normal(size=atoms.positions.shape)
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info["phase"] = phase
    return atoms


def write(path: Path, n_of_each: int, noise: tuple[float, float], seed: int) -> None:
    """``n_of_each`` structures of every phase, their noise drawn evenly from a range."""
    rng = np.random.default_rng(seed)
    frames = [
        damaged(phase, rng.uniform(*noise), rng)
        for _ in range(n_of_each)
        for phase in ("fcc", "bcc", "hcp", "diamond")
    ]
    ase.io.write(path, frames, format="extxyz")


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    write(folder / "train.xyz", 100, TRAIN_NOISE, seed=1)
    write(folder / "test.xyz", 50, TEST_NOISE, seed=2)
    for k, sigma in enumerate(SERIES):
        write(folder / f"noise_{sigma:.2f}.xyz", 25, (sigma, sigma), seed=10 + k)
