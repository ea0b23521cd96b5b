"""Whether a potential lasts in dynamics: does energy stay, do molecules stay whole, do atoms repel.

``python benchmarks/dynamics.py MODEL.pt [MODEL.pt ...] --frames test.xyz``

Run it with a Python that has ``metatomic-ase`` (for MACE's ``.model`` files: one that has ``mace-torch``). Three
things for each model, through ASE, the start positions taken evenly from the file:

- NVE: 0.5 fs a step, after half a picosecond of Langevin; drift by a linear fit of the total energy, and how far the
  energy is from this line.
- Langevin: 0.5 fs a step, friction 0.01/fs, the centre of mass free. A run ends where a bond broke: where one that
  the start had (1.3 times the covalent radii) is longer than 1.5 times what it was. A hydrogen that goes from one
  N, O or F to another has not left: that is chemistry.
- dimers of all pairs of elements, from 0.5 A to the cutoff: are forces finite, and do the atoms repel wherever they
  are closer than 0.8 times the sum of their covalent radii? Those that attract there are named, and those that
  do not feel each other somewhere, which is harmless at best.

Set ``OMP_NUM_THREADS=1``. See ``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from ase.geometry import find_mic
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from errors_of_model import calculator

PARTS = ("nve", "langevin", "dimers")
STEP_FS = 0.5
SETTLE_PS = 0.5
FRICTION = 0.01  # per fs
CHECK_EVERY = 20  # steps
APART = 1000.0  # angstrom between molecules that run side by side
BONDED, BROKEN = 1.3, 1.5
DONORS = (7, 8, 9)
CLOSEST = 0.5  # angstrom, of dimers
REPULSIVE_BELOW = 0.8
NO_FORCE = 1e-3  # eV/A


@dataclass
class Found:
    """What was found of one model."""

    model: str
    nve: dict[str, dict[str, float]] = field(default_factory=dict)
    langevin: list[dict[str, object]] = field(default_factory=list)
    dimers: dict[str, dict[str, object]] = field(default_factory=dict)


class Bonds:
    """The bonds of a start, watched."""

    def __init__(self, atoms: Atoms) -> None:
        numbers = atoms.numbers
        i, j = np.triu_indices(len(atoms), k=1)
        lengths = self._lengths(atoms, i, j)
        bonded = lengths < BONDED * (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])
        i, j, lengths = i[bonded], j[bonded], lengths[bonded]
        donors = np.isin(numbers, DONORS)
        movable = (donors[i] & (numbers[j] == 1)) | (donors[j] & (numbers[i] == 1))
        self.pairs, self.limits = (i[~movable], j[~movable]), BROKEN * lengths[~movable]
        hydrogens = np.where(numbers[i] == 1, i, j)[movable]
        self.hydrogens, self.held = hydrogens, BROKEN * lengths[movable]
        self.donors = np.flatnonzero(donors)

    @staticmethod
    def _lengths(atoms: Atoms, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        vectors = atoms.positions[j] - atoms.positions[i]
        return find_mic(vectors, atoms.cell, atoms.pbc)[1] if len(vectors) else np.zeros(0)

    def broken(self, atoms: Atoms) -> str:
        """The first broken bond, as words; nothing if all hold. NaN is a broken bond."""
        symbols = atoms.get_chemical_symbols()
        lengths = self._lengths(atoms, *self.pairs)
        for k in np.flatnonzero(~(lengths < self.limits)):
            i, j = self.pairs[0][k], self.pairs[1][k]
            return f"{symbols[i]}{i}-{symbols[j]}{j}"
        for hydrogen, limit in zip(self.hydrogens, self.held, strict=True):
            nearest = self._lengths(atoms, np.full_like(self.donors, hydrogen), self.donors)
            if not np.min(nearest) < limit:
                return f"H{hydrogen}"
        return ""


def starts(frames: Sequence[Atoms], number: int) -> list[Atoms]:
    """Some of the frames, evenly; the same again where there are too few."""
    places = np.linspace(0, len(frames) - 1, number).astype(int)
    return [Atoms(frames[k].numbers, frames[k].positions, cell=frames[k].cell, pbc=frames[k].pbc)
            for k in places]  # fmt: skip


def warm(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Random velocities, without drift or rotation as a whole."""
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    Stationary(atoms)
    if not atoms.pbc.any():
        ZeroRotation(atoms)


def nve(model: Any, start: Atoms, temperature: float, picoseconds: float) -> dict[str, float]:
    """Drift and fluctuation of the total energy."""
    atoms = start.copy()
    atoms.calc = model
    rng = np.random.default_rng(0)
    warm(atoms, temperature, rng)
    # TorchScript, too, is done with its first calls after this
    thermostat(atoms, temperature, rng).run(round(1000 * SETTLE_PS / STEP_FS))
    if not atoms.pbc.any():
        Stationary(atoms)
        ZeroRotation(atoms)
    times, energies, kelvin = [], [], []

    def record() -> None:
        times.append(len(times) * STEP_FS / 1000)
        energies.append(1000 * atoms.get_total_energy() / len(atoms))
        kelvin.append(atoms.get_temperature())

    dynamics = VelocityVerlet(atoms, STEP_FS * units.fs)
    dynamics.attach(record, interval=1)
    begin = time.process_time()
    dynamics.run(round(1000 * picoseconds / STEP_FS))
    seconds = time.process_time() - begin
    slope, offset = np.polyfit(times, energies, 1)
    rest = np.array(energies) - slope * np.array(times) - offset
    return {
        "drift, meV/atom in 5 ps": float(5 * slope),
        "fluctuation, meV/atom": float(rest.std()),
        "mean temperature, K": float(np.mean(kelvin)),
        "CPU ms a step": 1000 * seconds / (len(times) - 1),
    }


def thermostat(atoms: Atoms, temperature: float, rng: np.random.Generator) -> Langevin:
    """Langevin dynamics."""
    return Langevin(
        atoms,
        STEP_FS * units.fs,
        temperature_K=temperature,
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=rng,
    )


def langevin(
    model: Any, starts: Sequence[Atoms], temperature: float, picoseconds: float
) -> list[dict[str, object]]:
    """How long each molecule was whole, and which bond broke.

    Molecules in vacuum run side by side, far apart, as one system: a step of small ones is all overhead.
    One that breaks is taken out, lest it disturb the others.
    """
    if any(start.pbc.any() for start in starts):
        return [r for start in starts for r in _together(model, [start], temperature, picoseconds)]
    return _together(model, starts, temperature, picoseconds)


def _together(
    model: Any, starts: Sequence[Atoms], temperature: float, picoseconds: float
) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    watched = [Bonds(start) for start in starts]
    running, molecules = list(range(len(starts))), []
    for k, start in enumerate(starts):
        molecules.append(start.copy())
        warm(molecules[k], temperature, rng)
        if len(starts) > 1:
            molecules[k].positions[:, 0] += k * APART
    ends: dict[int, tuple[float, str]] = {}
    kelvin: dict[int, list[float]] = {k: [] for k in running}
    steps = 0
    while running and steps < 1000 * picoseconds / STEP_FS:
        atoms = molecules[running[0]].copy()
        for k in running[1:]:
            atoms += molecules[k]
        atoms.calc = model
        dynamics = thermostat(atoms, temperature, rng)
        broken: dict[int, str] = {}
        while not broken and steps < 1000 * picoseconds / STEP_FS:
            steps += CHECK_EVERY
            try:
                dynamics.run(CHECK_EVERY)
            except (RuntimeError, ValueError) as error:  # atoms that flew away, or are nowhere
                broken = dict.fromkeys(running, f"{type(error).__name__}: {str(error)[:80]}")
                break
            first = 0
            for k in running:
                molecules[k] = atoms[first : first + len(starts[k])]
                first += len(starts[k])
                kelvin[k].append(molecules[k].get_temperature())
                if bond := watched[k].broken(molecules[k]):
                    broken[k] = bond
        ends |= {k: (steps * STEP_FS / 1000, bond) for k, bond in broken.items()}
        running = [k for k in running if k not in broken]
    ends |= dict.fromkeys(running, (steps * STEP_FS / 1000, ""))
    return [
        {
            "picoseconds": ends[k][0],
            "broken": ends[k][1],
            "mean temperature, K": np.mean(kelvin[k] or 0.0),
        }
        for k in range(len(starts))
    ]


def dimer(model: Any, numbers: tuple[int, int], cutoff: float) -> dict[str, object]:
    """Forces between two atoms, from close to the cutoff."""
    distances = np.arange(CLOSEST, cutoff, 0.02)
    pushes = []
    for distance in distances:
        atoms = Atoms(list(numbers), [(0, 0, 0), (distance, 0, 0)])
        atoms.calc = model
        pushes.append(float(atoms.get_forces()[1, 0]))
    push = np.array(pushes)
    needed = REPULSIVE_BELOW * sum(covalent_radii[list(numbers)])
    close = push[: max(1, int(np.sum(distances < needed)))]
    attracted = np.flatnonzero(push < -NO_FORCE)
    return {
        "finite": bool(np.isfinite(push).all()),
        "attracts": bool((close < -NO_FORCE).any()),
        "no force": bool((np.abs(close) <= NO_FORCE).any()),
        "attracts from, A": float(distances[attracted[0]]) if len(attracted) else None,
        "force at the start, eV/A": pushes[0],
    }


def table(found: Sequence[Found], temperatures: Sequence[float], arguments: Any) -> str:
    """One row a model."""
    heads = ["model"]
    if "nve" in arguments.only:
        heads += [f"drift at {t:g} K (fluctuation), meV/atom" for t in temperatures]
        heads += ["CPU ms a step"]
    if "langevin" in arguments.only:
        heads += ["runs with a broken bond", "first after, ps", "run together, ps"]
    if "dimers" in arguments.only:
        heads += ["dimers: forces finite", "attract when close", "no force when close"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for one in found:
        cells = [one.model]
        for values in one.nve.values():
            drift, rest = values["drift, meV/atom in 5 ps"], values["fluctuation, meV/atom"]
            cells.append(f"{drift:+.3f} ({rest:.3f})")
        if one.nve:
            cells.append(f"{np.mean([values['CPU ms a step'] for values in one.nve.values()]):.2f}")
        if one.langevin:
            ends = [float(str(run["picoseconds"])) for run in one.langevin if run["broken"]]
            total = sum(float(str(run["picoseconds"])) for run in one.langevin)
            first = f"{min(ends):.2f}" if ends else "-"
            cells += [f"{len(ends)} of {len(one.langevin)}", first, f"{total:.1f}"]
        if one.dimers:
            finite = sum(bool(values["finite"]) for values in one.dimers.values())
            cells.append(f"{finite} of {len(one.dimers)}")
            for what in ("attracts", "no force"):
                pairs = [pair for pair, values in one.dimers.items() if values[what]]
                cells.append(", ".join(pairs) or "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--frames", type=Path, required=True, metavar="FILE")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument(
        "--nve", type=float, nargs="+", default=[300.0, 600.0], metavar="K", help="temperatures"
    )
    parser.add_argument("--nve-picoseconds", type=float, default=5.0)
    parser.add_argument("--picoseconds", type=float, default=50.0, help="of each Langevin run")
    parser.add_argument("--temperature", type=float, default=500.0, help="of the Langevin runs")
    parser.add_argument("--starts", type=int, default=10, help="Langevin runs for each model")
    parser.add_argument("--cutoff", type=float, default=5.0, help="where dimers end, A")
    parser.add_argument("--output", type=Path, default=Path("dynamics.json"))
    return parser.parse_args()


def main() -> None:
    """Run all parts, print the table."""
    arguments = parse_arguments()
    frames = read(arguments.frames, ":")
    elements = sorted({int(number) for frame in frames for number in frame.numbers})
    found: list[Found] = []
    for path in arguments.models:
        model, one = calculator(path), Found(str(path))
        found.append(one)
        if "nve" in arguments.only:
            for temperature in arguments.nve:
                values = nve(model, starts(frames, 1)[0], temperature, arguments.nve_picoseconds)
                one.nve[f"{temperature:g}"] = values
                print(f"{path} NVE at {temperature:g} K: {values}", flush=True)
        if "langevin" in arguments.only:
            chosen = starts(frames, arguments.starts)
            one.langevin = langevin(model, chosen, arguments.temperature, arguments.picoseconds)
            print(f"{path} Langevin: {one.langevin}", flush=True)
        if "dimers" in arguments.only:
            for pair in itertools.combinations_with_replacement(elements, 2):
                name = Atoms(list(pair)).symbols
                one.dimers[f"{name[0]}-{name[1]}"] = dimer(model, pair, arguments.cutoff)
        arguments.output.write_text(json.dumps([asdict(f) for f in found], indent=2))
    print("\n" + table(found, arguments.nve, arguments))


if __name__ == "__main__":
    main()
