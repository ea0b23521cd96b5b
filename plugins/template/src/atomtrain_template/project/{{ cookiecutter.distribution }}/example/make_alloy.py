"""Makes alloy.xyz: strained, shaken cells of copper and gold, labelled with ASE's EMT."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write


def alloy(seed: int) -> Atoms:
    """Eight atoms, each gold with a chance of one in three."""
    rng = np.random.default_rng(seed)
    atoms: Atoms = bulk("Cu", "fcc", a=3.8, cubic=True) * (2, 1, 1)
    atoms.numbers[rng.random(len(atoms)) < 1 / 3] = 79
    strain = np.eye(3) + 0.03 * rng.normal(size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    stress = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
    return atoms


if __name__ == "__main__":
    write("alloy.xyz", [alloy(seed) for seed in range(64)])
