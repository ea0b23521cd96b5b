"""Ethanol and acetaldehyde from GFN2-xTB, at 300 K: a set to measure fine-tuning, and what it forgets, on.

``python benchmarks/make_acetaldehyde.py FOLDER`` writes ``ethanol.xyz`` (300 frames), ``ethanol_test.xyz`` (100),
``acetaldehyde.xyz`` (50) and ``acetaldehyde_test.xyz`` (100), each from a trajectory of its own. As
``make_acac.py`` makes them, and with what it needs; ten minutes on one core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ase.io
from ase import Atoms
from ase.build import molecule
from ase.optimize import BFGS
from make_acac import sample
from tblite.ase import TBLite

SETS = {
    "ethanol": ("CH3CH2OH", 300, 1),
    "ethanol_test": ("CH3CH2OH", 100, 2),
    "acetaldehyde": ("CH3CHO", 50, 3),
    "acetaldehyde_test": ("CH3CHO", 100, 4),
}


def at_rest(name: str) -> Atoms:
    """A molecule of ASE's collection, relaxed."""
    atoms = molecule(name)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    return atoms


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (formula, n_frames, seed) in SETS.items():
        ase.io.write(folder / f"{name}.xyz", sample(at_rest(formula), 300, n_frames, seed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
