"""Whether dynamics hold: drift at constant energy, bonds under a thermostat, pairs of atoms pressed together.

``python benchmarks/dynamics.py model.pt [model.pt ...] --frames test.xyz`` with the Python that has
``metatomic-ase``. For every model:

- at constant energy, from the first frame with velocities of each temperature: the slope of a line through
  the total energy, meV per atom and 5 ps, and how far it wanders from that line;
- Langevin dynamics from ``--starts`` frames: a start has failed when a bond of the first frame (closer than 1.2
  times its covalent radii) is longer than 1.5 times its length in that frame;
- pairs of elements alone from 0.5 A to 5 A: whether forces are finite, and from where outwards they attract.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from metatomic_ase import MetatomicCalculator

TIMESTEP = 0.5 * units.fs
FRICTION = 0.01 / units.fs
CHECK_EVERY = 20
"""steps between looks at energies and bonds"""


def started(frame: Atoms, calculator: Any, temperature: float, seed: int) -> Atoms:
    """A copy of the frame that moves."""
    atoms = frame.copy()
    atoms.calc = calculator
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    return atoms


def drift(atoms: Atoms, picoseconds: float) -> tuple[float, float]:
    """Slope in meV per atom and 5 ps, and the deviation from the line in meV per atom."""
    energies = []
    dynamics = VelocityVerlet(atoms, TIMESTEP)
    n_looks = int(picoseconds * 1000 * units.fs / TIMESTEP / CHECK_EVERY)
    for _ in range(n_looks):
        dynamics.run(CHECK_EVERY)
        energies.append(1000 * atoms.get_total_energy() / len(atoms))
    times = np.arange(n_looks) / n_looks
    slope, offset = np.polyfit(times, energies, 1)
    wander = np.std(np.array(energies) - slope * times - offset)
    return float(slope) * 5.0 / picoseconds, float(wander)


def bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of bonded atoms and their distances."""
    i, j = np.triu_indices(len(atoms), 1)
    length = np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1)
    radii = covalent_radii[atoms.numbers]
    bonded = length < 1.2 * (radii[i] + radii[j])
    return i[bonded], j[bonded], length[bonded]


def broken_after(atoms: Atoms, temperature: float, picoseconds: float, seed: int) -> float | None:
    """Picoseconds until a bond broke, or None."""
    i, j, length = bonds(atoms)
    rng = np.random.default_rng(seed)
    dynamics = Langevin(
        atoms, TIMESTEP, temperature_K=temperature, friction=FRICTION, fixcm=False, rng=rng
    )
    for look in range(int(picoseconds * 1000 * units.fs / TIMESTEP / CHECK_EVERY)):
        dynamics.run(CHECK_EVERY)
        now = np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1)
        if not np.isfinite(now).all() or (now > 1.5 * length).any():
            return look * CHECK_EVERY * TIMESTEP / (1000 * units.fs)
    return None


def pair_curves(numbers: list[int], calculator: Any) -> dict[str, Any]:
    """For each pair of elements: largest force, and the shortest distance at which it attracts."""
    found = {}
    for a, b in combinations_with_replacement(numbers, 2):
        forces = []
        distances = np.arange(0.5, 5.0, 0.05)
        for r in distances:
            atoms = Atoms([a, b], positions=[[0, 0, 0], [0, 0, r]], calculator=calculator)
            forces.append(atoms.get_forces()[1, 2])
        attracts = np.flatnonzero(np.array(forces) < 0)
        found[str(Atoms([a, b]).symbols)] = {
            "finite": bool(np.isfinite(forces).all()),
            "force_at_0.5": float(forces[0]),
            "attracts_from": float(distances[attracts[0]]) if len(attracts) else None,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--nve", type=float, nargs="*", default=[300.0, 600.0], help="kelvin")
    parser.add_argument("--nve-picoseconds", type=float, default=5.0)
    parser.add_argument("--temperature", type=float, default=500.0, help="kelvin, of Langevin")
    parser.add_argument("--picoseconds", type=float, default=50.0)
    parser.add_argument("--starts", type=int, default=10)
    options = parser.parse_args()
    frames = ase.io.read(options.frames, ":")
    numbers = sorted({int(z) for frame in frames for z in frame.numbers})
    starts = frames[:: max(1, len(frames) // options.starts)][: options.starts]
    for model in options.models:
        calculator = MetatomicCalculator(model)
        found: dict[str, Any] = {"model": model.name}
        for kelvin in options.nve:
            atoms = started(frames[0], calculator, kelvin, 0)
            found[f"nve_{kelvin:.0f}K"] = drift(atoms, options.nve_picoseconds)
        found["broken_after_ps"] = [
            broken_after(
                started(frame, calculator, options.temperature, k),
                options.temperature,
                options.picoseconds,
                k,
            )
            for k, frame in enumerate(starts)
        ]
        found["pairs"] = pair_curves(numbers, calculator)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
