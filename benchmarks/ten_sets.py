"""Do trainings with the defaults fall over? Data sets of different kinds, three seeds each, one picture.

``python benchmarks/ten_sets.py FOLDER [FILE.xyz ...]`` makes five sets in ``FOLDER`` (a cluster of water by
GFN2-xTB, doi 10.1021/acs.jctc.8b01176; an alloy, a liquid, a surface and a metal cluster by ASE's effective medium
theory), takes further ones from extended xyz files with ``energy``, trains ACE on each with ``--layers 2`` and
nothing else changed than the epochs, and draws ``curves.svg``: the error on a tenth of the frames, relative to how
the data spread, by epoch. What is there already is not made again. Needs ``tblite``, ``ase`` and ``matplotlib``.

A model that knows nothing has a relative error of about 1. What is drawn is that of forces where there are forces.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

N_FRAMES, N_STARTS = 120, 4
MOST = 500  # frames of a file


def water(rng: np.random.Generator) -> Atoms:
    """Six molecules on a ring, turned by chance."""
    every = Atoms()
    for k in range(6):
        one = molecule("H2O")
        one.rotate(360 * rng.random(), rng.normal(size=3))
        angle = 2 * np.pi * k / 6
        one.translate(3.0 * np.array([np.cos(angle), np.sin(angle), 0.0]))
        every += one
    return every


def alloy(rng: np.random.Generator) -> Atoms:
    """Copper and gold, 32 atoms, a fraction drawn by chance."""
    fraction = rng.choice([0.25, 0.5, 0.75])
    atoms = bulk("Cu", "fcc", a=3.61 + 0.47 * fraction, cubic=True) * (2, 2, 2)
    chosen = rng.permutation(len(atoms))[: int(fraction * len(atoms))]
    atoms.symbols[chosen] = "Au"
    return atoms


def liquid(rng: np.random.Generator) -> Atoms:
    """Aluminium, 32 atoms, shaken far off its lattice."""
    atoms = bulk("Al", "fcc", a=4.25, cubic=True) * (2, 2, 2)
    atoms.positions += rng.normal(0.0, 0.35, (len(atoms), 3))
    return atoms


def surface(rng: np.random.Generator) -> Atoms:
    """Carbon monoxide and oxygen on nickel; the lower layer is held."""
    atoms = fcc111("Ni", (3, 3, 3), vacuum=7.0)
    add_adsorbate(atoms, molecule("CO")[[1, 0]], 1.8, "ontop", offset=int(rng.integers(2)))
    add_adsorbate(atoms, "O", 1.2, "fcc", offset=2)
    atoms.set_constraint(FixAtoms([k for k, tag in enumerate(atoms.get_tags()) if tag == 3]))
    return atoms


def cluster(rng: np.random.Generator) -> Atoms:
    """38 atoms of platinum and gold without cell."""
    atoms = Octahedron("Pt", 4, 1)
    atoms.symbols[rng.permutation(len(atoms))[: int(rng.choice([6, 19]))]] = "Au"
    atoms.cell[:] = 0.0
    atoms.pbc = False
    return atoms


def emt() -> Calculator:
    """ASE's effective medium theory."""
    return EMT()


def xtb() -> Calculator:
    """GFN2-xTB."""
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", verbosity=0)


SETS: dict[
    str, tuple[Callable[[np.random.Generator], Atoms], Callable[[], Calculator], int, float]
] = {
    "water cluster": (water, xtb, 300, 1.0),
    "alloy": (alloy, emt, 900, 5.0),
    "liquid": (liquid, emt, 1500, 5.0),
    "surface": (surface, emt, 600, 2.0),
    "metal cluster": (cluster, emt, 900, 5.0),
}
"""how it starts, what labels it, temperature in K, and the time step in fs"""


def sample(name: str) -> list[Atoms]:
    """Frames of a few trajectories, with energies (eV), forces (eV/A) and, in a cell, stress (eV/A^3)."""
    start, calculator, temperature, step = SETS[name]
    frames = []
    for seed in range(N_STARTS):
        rng = np.random.default_rng(seed)
        atoms = start(rng)
        atoms.calc = calculator()
        MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
        dynamics = Langevin(
            atoms, step * units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng
        )  # fmt: skip
        dynamics.run(100)
        for _ in range(N_FRAMES // N_STARTS):
            dynamics.run(20)
            frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            labels = {
                "energy": atoms.get_potential_energy(),
                "forces": atoms.get_forces(apply_constraint=False),
            }
            if atoms.pbc.all() and name != "surface":
                labels["stress"] = atoms.get_stress()
            frame.calc = SinglePointCalculator(frame, **labels)
            frames.append(frame)
    return frames


def training(file: Path, seed: int, layers: int, epochs: int, folder: Path) -> Path:
    """The ``train.csv`` of one training in ``folder``; one that is there is not repeated."""
    done = sorted(folder.glob("outputs/*/*/train.csv"))
    if done and (folder / "model.pt").exists():
        return done[-1]
    folder.mkdir(parents=True, exist_ok=True)
    section = {
        "systems": {"read_from": str(file.resolve()), "length_unit": "angstrom"},
        "targets": {"energy": {"key": "energy", "unit": "eV"}},
    }
    architecture = {
        "name": "ace",
        "model": {"num_layers": layers},
        "training": {"num_epochs": epochs, "log_interval": 1},
    }
    options = {
        "seed": seed,
        "architecture": architecture,
        "training_set": section,
        "validation_set": 0.1,
    }
    (folder / "options.yaml").write_text(json.dumps(options, indent=2))  # JSON is YAML
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "atomtrain", "train", "options.yaml"]
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=True)
    return sorted(folder.glob("outputs/*/*/train.csv"))[-1]


def spread(file: Path) -> tuple[str, float]:
    """The column of the error, and how far the data are spread: forces in meV/A, else energies in meV/atom."""
    frames = ase.io.read(file, ":")
    if all(frame.calc is not None and "forces" in frame.calc.results for frame in frames):
        forces = np.concatenate([frame.get_forces(apply_constraint=False) for frame in frames])
        return "validation forces RMSE [meV/A]", 1e3 * float(np.sqrt((forces**2).mean()))
    kinds = sorted({s for frame in frames for s in frame.symbols})
    counts = np.array([[list(frame.symbols).count(s) for s in kinds] for frame in frames])
    energies = np.array([frame.get_potential_energy() for frame in frames])
    left = energies - counts @ np.linalg.lstsq(counts, energies, rcond=None)[0]
    return "validation energy RMSE [meV/atom]", 1e3 * float((left / counts.sum(1)).std())


def curve(table: Path, column: str, scale: float) -> np.ndarray:
    """Errors by epoch, relative to ``scale``."""
    with table.open(newline="") as lines:
        return np.array([float(row[column]) / scale for row in csv.DictReader(lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--layers", type=int, default=2, choices=(1, 2))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--atoms", type=int, default=150_000, help="that a training looks at")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name in SETS:
        files[name] = folder / f"{name.replace(' ', '_')}.xyz"
        if not files[name].exists():
            ase.io.write(files[name], sample(name))
    for path in arguments.files:
        files[path.stem] = folder / path.name
        if not files[path.stem].exists():
            ase.io.write(files[path.stem], ase.io.read(path, f":{MOST}"))
    columns = -(-len(files) // 2)
    figure, axes = plt.subplots(2, columns, figsize=(3 * columns, 6), sharey=True, squeeze=False)
    for (name, file), ax in zip(files.items(), axes.flat, strict=False):
        column, scale = spread(file)
        epochs = max(5, arguments.atoms // sum(len(frame) for frame in ase.io.read(file, ":")))
        ends = []
        for seed in range(arguments.seeds):
            table = training(file, seed, arguments.layers, epochs, folder / f"{file.stem}_{seed}")
            errors = curve(table, column, scale)
            ends.append(errors[-1])
            ax.plot(np.arange(1, len(errors) + 1), errors)
        kind = "forces" if "forces" in column else "energies"
        ax.set(yscale="log", title=f"{name}, {kind}", xlabel="epoch")
        print(f"{name:20s} {kind:9s} spread {scale:8.1f}, {epochs} epochs, ends {np.round(ends, 4)}, highest "
              f"{max(ends):.3f}", flush=True)  # fmt: skip
    for ax in axes[:, 0]:
        ax.set_ylabel("error / spread")
    figure.tight_layout()
    figure.savefig(folder / "curves.svg")


if __name__ == "__main__":
    main()
