"""Make ``ethanol.xyz``: snapshots of one ethanol molecule at 500 K, with energies and forces.

The file is kept in the repository, so this is needed only to regenerate it, or as a pattern
for data of your own::

    pip install ase tblite
    python make_ethanol.py
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from ase.optimize import BFGS
from tblite.ase import TBLite

TEMPERATURE = 500.0  # kelvin
TIME_STEP = 0.5  # fs: hydrogens move
EQUILIBRATION = 4000  # steps, 2 ps, thrown away
STRIDE = 100  # steps between snapshots, 50 fs: longer than a C-H bend takes


def snapshots(n_frames: int, seed: int) -> list[Atoms]:
    """Run Langevin dynamics and return every ``STRIDE``-th structure with its labels."""
    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.01)
    # The thermostat brings the velocities: its memory, 100 fs, is far below the equilibration.
    dynamics = Langevin(
        atoms,
        timestep=TIME_STEP * units.fs,
        temperature_K=TEMPERATURE,
        friction=0.01 / units.fs,
        fixcm=False,  # holding the centre still would falsify the temperature of nine atoms
        rng=rng,
    )
    dynamics.run(EQUILIBRATION)

    frames = []
    for _ in range(n_frames):
        dynamics.run(STRIDE)
        # A bare copy: velocities and the charges and dipoles of xTB are not labels here.
        frame = Atoms(atoms.numbers, atoms.positions - atoms.get_center_of_mass())
        frame.calc = SinglePointCalculator(
            frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces()
        )
        frames.append(frame)
    return frames


def main() -> None:
    """Write the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("ethanol.xyz"))
    arguments = parser.parse_args()
    # ASE writes the calculator's results under the names readers look for: energy, forces.
    write(arguments.output, snapshots(arguments.frames, arguments.seed), format="extxyz")


if __name__ == "__main__":
    main()
