"""Make ``copper.xyz``: hot, strained and defective copper with energies, forces and stress.

The labels come from ASE's EMT, a fast empirical potential: good for trying things out, not for
metallurgy. The file is kept in the repository, so this is needed only to regenerate it, or as a
pattern for data of your own::

    pip install ase
    python make_copper.py
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin

TEMPERATURES = (300.0, 600.0, 900.0, 1200.0)  # kelvin, solid throughout
MAX_VACANCIES = 2  # of 32 sites
STRAIN = 0.025  # standard deviation along the axes; the shears get 0.7 of it
EQUILIBRATION = 200  # steps of 4 fs
STRIDE = 100  # steps between the snapshots of one run
PER_RUN = 4  # snapshots of each strained cell


def run(temperature: float, vacancies: int, rng: np.random.Generator) -> list[Atoms]:
    """Take a few snapshots of one randomly strained cell at one temperature."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(2)
    del atoms[rng.choice(len(atoms), size=vacancies, replace=False).tolist()]
    strain = rng.normal(scale=STRAIN, size=(3, 3))
    strain = (strain + strain.T) / 2  # a rotation would add nothing
    atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
    atoms.calc = EMT()
    dynamics = Langevin(
        atoms,
        timestep=4 * units.fs,
        temperature_K=temperature,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=rng,
    )
    dynamics.run(EQUILIBRATION)
    frames = []
    for _ in range(PER_RUN):
        dynamics.run(STRIDE)
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        frame.wrap()
        frame.calc = SinglePointCalculator(
            frame,
            energy=atoms.get_potential_energy(),
            forces=atoms.get_forces(),
            stress=atoms.get_stress(),  # eV/A^3, ASE's sign: tension is positive
        )
        frames.append(frame)
    return frames


def main() -> None:
    """Write the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("copper.xyz"))
    arguments = parser.parse_args()

    rng = np.random.default_rng(arguments.seed)
    frames = []
    for index in range(arguments.runs):
        temperature = TEMPERATURES[index % len(TEMPERATURES)]
        vacancies = int(rng.integers(MAX_VACANCIES + 1))
        frames += run(temperature, vacancies, rng)
    # ASE writes the calculator's results under the names readers look for: energy, forces, stress.
    write(arguments.output, frames, format="extxyz")


if __name__ == "__main__":
    main()
