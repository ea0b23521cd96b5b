"""Acetylacetone (C5H8O2, the enol, 15 atoms) from GFN2-xTB: a set to measure accuracy on.

``python benchmarks/make_acac.py FOLDER`` writes ``train.xyz`` (500 frames at 300 K), ``test_300K.xyz`` and
``test_600K.xyz`` (200 frames each, from trajectories of their own). Needs ``tblite`` and ``ase``; takes half an
hour on one core. The method: doi 10.1021/acs.jctc.8b01176.

Langevin dynamics of 1 fs a step, a frame every 50 fs after 3 ps. Two methyl groups that turn nearly freely and a
proton between two oxygens make it flexible.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS
from tblite.ase import TBLite

SETS = {"train": (300, 500, 1), "test_300K": (300, 200, 2), "test_600K": (600, 200, 3)}
STEPS_BETWEEN, STEPS_BEFORE = 50, 3000
HALF = [
    ("O", (1.25, 1.35, 0.0)),
    ("C", (1.20, 0.10, 0.0)),
    ("C", (2.50, -0.65, 0.0)),
    ("H", (2.40, -1.73, 0.0)),
    ("H", (3.10, -0.35, 0.88)),
    ("H", (3.10, -0.35, -0.88)),
]


def enol() -> Atoms:
    """The molecule at rest."""
    mirrored = [(symbol, (-x, y, z)) for symbol, (x, y, z) in HALF]
    middle = [("C", (0.0, -0.60, 0.0)), ("H", (0.0, -1.70, 0.0)), ("H", (0.35, 1.65, 0.0))]
    symbols, positions = zip(*HALF, *mirrored, *middle, strict=True)
    atoms = Atoms(list(symbols), np.array(positions))
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    return atoms


def sample(start: Atoms, temperature: float, n_frames: int, seed: int) -> list[Atoms]:
    """Frames of one trajectory, with energies (eV) and forces (eV/A)."""
    rng = np.random.default_rng(seed)
    atoms = start.copy()
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(
        atoms, units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng
    )
    dynamics.run(STEPS_BEFORE)
    frames = []
    for _ in range(n_frames):
        dynamics.run(STEPS_BETWEEN)
        frame = Atoms(atoms.symbols, atoms.positions - atoms.get_center_of_mass())
        frame.calc = SinglePointCalculator(
            frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces()
        )
        frames.append(frame)
    return frames


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    start = enol()
    for name, (temperature, n_frames, seed) in SETS.items():
        ase.io.write(folder / f"{name}.xyz", sample(start, temperature, n_frames, seed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
