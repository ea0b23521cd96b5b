"""Ions and spin states from GFN2-xTB: sets whose energies depend on more than the atoms.

``python benchmarks/make_ions.py FOLDER`` writes ``ions.xyz`` (nitromethane and acetic acid with charges -1, 0 and 1)
and ``spins.xyz`` (formaldehyde, ethene and methylene as singlets and triplets), 360 frames each, with ``charge`` and
``spin_multiplicity`` of every frame. Needs ``tblite`` and ``ase``; takes a few minutes on one core. The method:
doi 10.1021/acs.jctc.8b01176.

Langevin dynamics of every state, 1 fs a step at 300 K, a frame every 20 fs after 0.3 ps. Each frame is labelled in a
state of its molecule that is drawn by chance, so that the geometry does not tell the state.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS
from tblite.ase import TBLite

State = tuple[int, int]
"""charge and spin multiplicity"""
IONS: list[State] = [(-1, 2), (0, 1), (1, 2)]
SPINS: list[State] = [(0, 1), (0, 3)]
SETS = {
    "ions": (["CH3NO2", "CH3COOH"], IONS, 60),
    "spins": (["H2CO", "C2H4", "CH2_s1A1d"], SPINS, 60),
}
"""names of ASE's molecules, their states, and frames of each state's dynamics"""
STEPS_BETWEEN, STEPS_BEFORE = 20, 300


def in_state(atoms: Atoms, state: State) -> Atoms:
    """A copy in a state, with a calculator that knows it."""
    found = Atoms(atoms.symbols, atoms.positions)
    charge, multiplicity = state
    found.calc = TBLite(method="GFN2-xTB", charge=charge, multiplicity=multiplicity, verbosity=0)
    found.info.update(charge=charge, spin_multiplicity=multiplicity)
    return found


def sample(name: str, state: State, states: list[State], n: int, seed: int) -> list[Atoms]:
    """Frames of the dynamics of one state, with energies (eV) and forces (eV/A) of some state."""
    rng = np.random.default_rng(seed)
    atoms = in_state(molecule(name), state)
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=200)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=rng)
    dynamics = Langevin(
        atoms, units.fs, temperature_K=300, friction=0.02 / units.fs, fixcm=False, rng=rng
    )
    dynamics.run(STEPS_BEFORE)
    frames = []
    for _ in range(n):
        dynamics.run(STEPS_BETWEEN)
        other = in_state(atoms, states[rng.integers(len(states))])
        results = {"energy": other.get_potential_energy(), "forces": other.get_forces()}
        other.positions -= other.get_center_of_mass()
        other.calc = SinglePointCalculator(other, **results)
        frames.append(other)
    return frames


def main(folder: Path) -> None:
    """Write both sets."""
    folder.mkdir(parents=True, exist_ok=True)
    for title, (names, states, n) in SETS.items():
        frames: list[Atoms] = []
        for name in names:
            for state in states:
                frames += sample(name, state, states, n, seed=len(frames))
        ase.io.write(folder / f"{title}.xyz", frames)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
