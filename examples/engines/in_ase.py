"""ASE: constant energy, constant pressure, relaxation of the cell, elastic constants, phonons.

``python in_ase.py model.pt``; beside each number is that of EMT, the potential that the model learnt from.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.phonons import Phonons
from metatomic_ase import MetatomicCalculator
from reference import copper


def velocities(atoms: Atoms, temperature: float) -> None:
    """Random ones, without motion of the whole."""
    momenta = np.random.default_rng(0).normal(size=(len(atoms), 3))
    momenta *= np.sqrt(units.kB * temperature * atoms.get_masses())[:, None]
    atoms.set_momenta(momenta - momenta.mean(0))


def constant_energy(calculator: Any) -> float:
    """How far the total energy strays in 0.4 ps, meV/atom."""
    atoms = copper()
    atoms.calc = calculator
    velocities(atoms, 300)
    dynamics = VelocityVerlet(atoms, 2 * units.fs)
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.run(200)
    return float(1000 * np.ptp(energies) / len(atoms))


def constant_pressure(calculator: Any) -> float:
    """Volume of an atom at 300 K without pressure, A^3: the second half of 1 ps. The barostat needs the stress."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(2)
    atoms.calc = calculator
    velocities(atoms, 600)  # half of it goes into the potential
    dynamics = IsotropicMTKNPT(
        atoms, 2 * units.fs, temperature_K=300, pressure_au=0.0,
        tdamp=50 * units.fs, pdamp=300 * units.fs,
    )  # fmt: skip
    volumes: list[float] = []
    dynamics.attach(lambda: volumes.append(atoms.get_volume() / len(atoms)))
    dynamics.run(500)
    return float(np.mean(volumes[250:]))


def relaxed(calculator: Any) -> Atoms:
    """A cell of four atoms without forces and stress."""
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.001, steps=100)
    return atoms


def elastic_constants(calculator: Any) -> list[float]:
    """C11, C12 and C44 in GPa, from the stress of strained cells."""
    start, small = relaxed(calculator), 0.002

    def slope(strain: np.ndarray) -> np.ndarray:
        stresses = []
        for sign in (1, -1):
            atoms = start.copy()
            atoms.set_cell(start.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
            atoms.calc = calculator
            stresses.append(atoms.get_stress(voigt=False))
        return (stresses[0] - stresses[1]) / (2 * small) / units.GPa

    along, across = np.zeros((3, 3)), np.zeros((3, 3))
    along[0, 0] = small
    across[1, 2] = across[2, 1] = small / 2
    first, shear = slope(along), slope(across)
    return [float(value) for value in (first[0, 0], first[1, 1], shear[1, 2])]


def highest_phonon(calculator: Any) -> float:
    """The longitudinal phonon at X, THz, by finite differences."""
    primitive = bulk("Cu", "fcc", a=float(np.cbrt(relaxed(calculator).get_volume())))
    with tempfile.TemporaryDirectory() as folder:
        phonons = Phonons(primitive, calculator, supercell=(4, 4, 4), delta=0.02,
                          name=str(Path(folder) / "phonon"))  # fmt: skip
        phonons.run()
        phonons.read(acoustic=True)
        energies = phonons.band_structure(np.array([[0.5, 0.0, 0.5]]))
    return float(energies.max() / (2 * np.pi * units._hbar * units.J) * 1e-12)


def main() -> None:
    """One table."""
    both = {"model": MetatomicCalculator(sys.argv[1], device="cpu"), "EMT": EMT()}
    rows = {
        "total energy strays at constant energy, meV/atom": constant_energy,
        "volume at 300 K and no pressure, A^3/atom": constant_pressure,
        "lattice constant, A": lambda c: float(np.cbrt(relaxed(c).get_volume())),
        "C11, C12, C44, GPa": elastic_constants,
        "phonon at X, THz": highest_phonon,
    }
    print(f"{'':50}" + "".join(f"{name:>22}" for name in both))
    for name, measure in rows.items():
        values = [np.atleast_1d(measure(calculator)) for calculator in both.values()]
        print(f"{name:50}" + "".join(f"{' '.join(f'{v:.4g}' for v in one):>22}" for one in values))


if __name__ == "__main__":
    main()
