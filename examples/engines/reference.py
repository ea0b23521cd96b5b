"""What ASE says of a model: the energy, forces and stress that every engine must give again."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from metatomic_ase import MetatomicCalculator

TOLERANCE = 1e-6
"""eV, eV/A and eV/A^3: the model is in 64 bits"""


def copper(seed: int = 0, a: float = 3.7) -> Atoms:
    """A box of 32 atoms, strained and shaken, so that no component of the stress is zero."""
    atoms = bulk("Cu", "fcc", a=a, cubic=True).repeat(2)
    atoms.set_cell(atoms.cell.array @ np.diag([1.01, 0.99, 1.02]), scale_atoms=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def in_ase(model: str, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy (eV), forces (eV/A, [n, 3]) and stress (eV/A^3, [3, 3]) by ASE."""
    atoms = atoms.copy()
    atoms.calc = MetatomicCalculator(model, device="cpu")
    return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)


def agrees(
    engine: str,
    expected: tuple[float, np.ndarray, np.ndarray],
    energy: float,
    forces: np.ndarray,
    stress: np.ndarray | None = None,
) -> None:
    """Print how far an engine is from ASE, and raise AssertionError if that is too far."""
    found = {"energy": (energy, "eV"), "forces": (forces, "eV/A")}
    found |= {} if stress is None else {"stress": (stress, "eV/A^3")}
    for (name, (value, unit)), reference in zip(found.items(), expected, strict=False):
        difference = float(np.abs(np.asarray(value) - reference).max())
        print(f"{engine}: {name} within {difference:.1e} {unit} of ASE's")
        assert difference < TOLERANCE, f"{engine}: {name} differ by {difference} {unit}"
