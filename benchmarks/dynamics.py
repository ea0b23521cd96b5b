"""Whether a potential lasts in dynamics: does energy stay, do molecules stay whole, do atoms repel.

``python benchmarks/dynamics.py MODEL.pt [MODEL.pt ...] --frames test.xyz``

Run it with a Python that has ``atomtrain-dynamics`` (for MACE's ``.model`` files: ``mace-torch`` as well). Three things
for each model, the start positions taken evenly from the file; docs/dynamics.md says how the first two are measured:

- NVE: 0.5 fs a step, after half a picosecond of Langevin; drift by a linear fit of the total energy, and how far the
  energy is from this line.
- Langevin: 0.5 fs a step, friction 0.01/fs, the centre of mass free. A run ends where a bond broke or atoms are closer
  or lonelier than in the file.
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
from ase import Atoms
from ase.data import covalent_radii
from ase.io import read
from errors_of_model import calculator

from atomtrain_dynamics.check import check
from atomtrain_dynamics.engine import Model, model_of
from atomtrain_dynamics.settings import Settings
from atomtrain_dynamics.structures import Structure

PARTS = ("nve", "langevin", "dimers")
STEP_FS = 0.5
APART = 1000.0  # angstrom between molecules that run side by side
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


def side_by_side(one: Any) -> Model:
    """The model of a calculator. One that takes a structure at a time gets molecules far apart, as one system."""
    model = model_of(one)
    if hasattr(one, "compute_energy"):
        return model

    def together(structures: Sequence[Atoms]) -> Any:
        if len(structures) == 1 or any(atoms.pbc.any() for atoms in structures):
            return model(structures)
        whole = Atoms()
        for k, atoms in enumerate(structures):
            moved = atoms.copy()
            moved.positions[:, 0] += k * APART
            whole += moved
        (energy,), (forces,) = model([whole])
        ends = np.cumsum([len(atoms) for atoms in structures])[:-1]
        # energies of each are not known: the thermostat asks for none
        return [energy / len(structures)] * len(structures), np.split(forces, ends)

    return together


def nve(model: Model, data: list[Structure], temperature: float, ps: float) -> dict[str, float]:
    """Drift and fluctuation of the total energy of one run."""
    settings = Settings(temperature=temperature, time=ps, starts=1, timestep=STEP_FS)
    begin = time.process_time()
    found = check(model, settings, data, data).values()
    steps = 1000 * found["runs"][0]["lasted_ps"] / STEP_FS
    return {
        "drift, meV/atom in 5 ps": 5 * found.get("drift_meV_per_atom_per_ps", np.nan),
        "fluctuation, meV/atom": found.get("fluctuation_meV_per_atom", np.nan),
        "mean temperature, K": found.get("temperature_K", np.nan),
        "CPU ms a step": 1000 * (time.process_time() - begin) / steps,
    }


def langevin(
    model: Model, data: list[Structure], starts: int, temperature: float, ps: float
) -> list[dict[str, object]]:
    """How long each run held, and what ended it."""
    settings = Settings(
        temperature=temperature, time=ps, starts=starts, timestep=STEP_FS, settle=0.0,
        ensemble="langevin",
    )  # fmt: skip
    return [
        {
            "picoseconds": run["lasted_ps"],
            "broken": run["ended"] or "",
            "mean temperature, K": run.get("temperature_K", np.nan),
        }
        for run in check(model, settings, data, data).values()["runs"]
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
        heads += ["runs that broke", "first after, ps", "run together, ps"]
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
    data = [Structure(frame, f"frame {k}") for k, frame in enumerate(frames)]
    found: list[Found] = []
    for path in arguments.models:
        model, one = calculator(path), Found(str(path))
        together = side_by_side(model)
        found.append(one)
        if "nve" in arguments.only:
            for temperature in arguments.nve:
                values = nve(together, data, temperature, arguments.nve_picoseconds)
                one.nve[f"{temperature:g}"] = values
                print(f"{path} NVE at {temperature:g} K: {values}", flush=True)
        if "langevin" in arguments.only:
            one.langevin = langevin(
                together, data, arguments.starts, arguments.temperature, arguments.picoseconds
            )
            print(f"{path} Langevin: {one.langevin}", flush=True)
        if "dimers" in arguments.only:
            for pair in itertools.combinations_with_replacement(elements, 2):
                name = Atoms(list(pair)).symbols
                one.dimers[f"{name[0]}-{name[1]}"] = dimer(model, pair, arguments.cutoff)
        arguments.output.write_text(json.dumps([asdict(f) for f in found], indent=2))
    print("\n" + table(found, arguments.nve, arguments))


if __name__ == "__main__":
    main()
