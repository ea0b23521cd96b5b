"""The structures of the kit: awkward ones for the physics, labelled crystals for training.

Made with ASE from fixed seeds, for any elements. Positions have six decimals, so that a text file
gives them back exactly. Lengths are in angstrom.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

Types = tuple[int, ...]


def awkward(types: Types) -> dict[str, Atoms]:
    """A molecule, a skewed crystal, a cell smaller than any cutoff, a slab, single atoms."""
    crystal = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    crystal.set_cell(
        crystal.cell.array @ (np.eye(3) + [[0, 0.1, 0], [0.02, 0, 0.05], [0, 0, 0.03]]),
        scale_atoms=True,
    )
    slab = bulk("C", "diamond", a=4.1, cubic=True)
    slab.pbc = [True, True, False]
    slab.cell[2] = 0.0
    frames = {
        "molecule": some_molecule(types),
        "crystal": _shaken(_of(crystal, types), 1),
        "small cell": _shaken(_of(bulk("Cu", "fcc", a=3.7), types), 2),
        "slab": _shaken(_of(slab, types), 3),
        "single atom": Atoms(numbers=[types[-1]], positions=[[0.0, 0.0, 0.0]]),
        "atoms far apart": Atoms(
            numbers=[types[0], types[-1]], positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 1e3]]
        ),
    }
    return frames


def neighbourly(types: Types) -> dict[str, Atoms]:
    """Those of the awkward structures in which every atom has neighbours."""
    return {k: v for k, v in awkward(types).items() if k not in ("single atom", "atoms far apart")}


def some_molecule(types: Types) -> Atoms:
    """Nine atoms without any symmetry, in the shape of ethanol."""
    return _shaken(_of(molecule("CH3CH2OH"), types), 0)


def trio(types: Types, first: int, second: int, distance: float, near: float) -> Atoms:
    """Two atoms at a ``distance``, and a third ``near`` the first."""
    return Atoms(
        numbers=[first, second, types[0]],
        positions=[[0.0, 0.0, 0.0], [0.0, 0.0, distance], [0.8 * near, 0.6 * near, 0.0]],
    )


def chain(types: Types, n: int, spacing: float) -> Atoms:
    """A zigzag of ``n`` atoms along x, neighbours ``spacing`` apart."""
    k = np.arange(n)
    positions = np.stack([0.8 * spacing * k, 0.6 * spacing * (k % 2), 0.05 * (k % 3)], axis=1)
    return Atoms(numbers=[types[i % len(types)] for i in k], positions=np.round(positions, 6))


def thin_cell(types: Types, cutoff: float) -> Atoms:
    """Two atoms in a cell whose edges are all well below the cutoff."""
    cell = np.diag([0.55 * cutoff, 0.6 * cutoff, 0.65 * cutoff])
    fractional = np.array([[0.02, 0.03, 0.01], [0.48, 0.55, 0.53]])
    return Atoms(
        numbers=[types[0], types[-1]],
        positions=np.round(fractional @ cell, 6),
        cell=np.round(cell, 6),
        pbc=True,
    )


def labelled(types: Types, n: int, seed: int = 0) -> list[Atoms]:
    """Strained, shaken crystals with energy, forces and stress of a smooth Lennard-Jones potential."""
    return copy.deepcopy(_labelled(types, n, seed))


@lru_cache
def _labelled(types: Types, n: int, seed: int) -> list[Atoms]:
    frames = []
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        edge = 4.2 + 0.12 * (k % 5)  # easy to tell apart
        atoms = _of(bulk("NaCl", "rocksalt", a=edge, cubic=True), types, rng)
        strain = np.eye(3) + 0.04 * rng.normal(size=(3, 3))
        atoms.set_cell(np.round(atoms.cell.array @ strain, 6), scale_atoms=True)
        atoms.positions = np.round(
            atoms.positions + 0.1 * rng.normal(size=atoms.positions.shape), 6
        )
        atoms.calc = LennardJones(sigma=2.0, epsilon=0.2, rc=4.0, ro=3.0, smooth=True)
        results = {
            "energy": atoms.get_potential_energy() - float(np.sum(atoms.numbers)),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["number"] = k
        frames.append(atoms)
    return frames


def moved_by(atoms: Atoms, by: np.ndarray) -> Atoms:
    """A copy with its positions moved ``by [n, 3]`` or ``[3]``."""
    other = atoms.copy()
    other.positions = other.positions + by
    return other


def _of(atoms: Atoms, types: Types, rng: np.random.Generator | None = None) -> Atoms:
    """The same structure of these elements, each of them there (or as many as there are atoms)."""
    n = len(atoms)
    atoms.numbers = [types[k % len(types)] for k in range(n)]
    if rng is not None:
        atoms.numbers = rng.permutation(atoms.numbers)
    return atoms


def _shaken(atoms: Atoms, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms.positions = np.round(atoms.positions + 0.08 * rng.normal(size=(len(atoms), 3)), 6)
    atoms.set_cell(np.round(atoms.cell.array, 6))
    return atoms
