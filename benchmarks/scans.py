"""What a model of 300 K says of paths it has not seen: rigid scans of acetylacetone (the enol) by GFN2-xTB.

``python benchmarks/scans.py make FOLDER`` writes three scans, energies (eV) and forces (eV/A) at every step:
``proton.xyz``, the hydrogen between the two oxygens goes from one to the other, these 2.45 A apart; ``hydroxyl.xyz``,
it is turned out of the ring about the bond of carbon and oxygen, half a turn; ``methyl.xyz``, a methyl group is
turned, 120 degrees. Needs ``tblite`` and ``ase`` (the method: doi 10.1021/acs.jctc.8b01176).

``python benchmarks/scans.py errors FOLDER MODEL [MODEL ...]`` prints for each scan and model the barrier (highest
energy less that of the first frame), that of xTB, and the largest error of an energy along the path, relative to the
first frame, in meV of the whole molecule; and the RMSE of forces, in meV/A. Models are metatomic's (``.pt``) or MACE's
(``.model``), in an environment that has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixBondLength
from ase.optimize import BFGS
from errors_of_model import calculator as calculator_of

STEPS = 25
OXYGENS = 2.45


def scans(start: Atoms, calculator: object) -> dict[str, list[Atoms]]:
    """Frames of every scan, from the molecule at rest; ``calculator`` relaxes what a scan starts from."""
    oxygens = [k for k, s in enumerate(start.symbols) if s == "O"]
    carbons = [k for k, s in enumerate(start.symbols) if s == "C"]
    hydrogens = [k for k, s in enumerate(start.symbols) if s == "H"]
    distances = start.get_all_distances()

    def nearest(k: int, among: list[int]) -> int:
        return min((j for j in among if j != k), key=lambda j: float(distances[k, j]))

    bridge = min(hydrogens, key=lambda h: float(distances[h, oxygens].min()))
    donor = nearest(bridge, oxygens)
    acceptor = next(k for k in oxygens if k != donor)
    carbon = nearest(donor, carbons)
    ends = [c for c in carbons if sum(distances[c, h] < 1.2 for h in hydrogens) == 3]
    end = ends[0]
    rotor = [h for h in hydrogens if distances[h, end] < 1.2]
    root = nearest(end, carbons)

    close = start.copy()
    close.set_distance(donor, acceptor, OXYGENS)
    close.set_constraint(FixBondLength(donor, acceptor))
    close.calc = calculator
    BFGS(close, logfile=None).run(fmax=0.05, steps=200)
    close.set_constraint()
    proton = []
    line = close.positions[acceptor] - close.positions[donor]
    length = float(np.linalg.norm(line))
    for part in np.linspace(1.0 / length, 1.0 - 1.0 / length, STEPS):
        frame = Atoms(close.symbols, close.positions)
        frame.positions[bridge] = close.positions[donor] + part * line
        proton.append(frame)

    def turned(axis: tuple[int, int], moving: list[int], angles: np.ndarray) -> list[Atoms]:
        frames = []
        for angle in angles:
            frame = Atoms(start.symbols, start.positions)
            along = frame.positions[axis[1]] - frame.positions[axis[0]]
            part = frame[moving]
            part.rotate(angle, along, center=frame.positions[axis[1]])
            frame.positions[moving] = part.positions
            frames.append(frame)
        return frames

    return {
        "proton": proton,
        "hydroxyl": turned((carbon, donor), [bridge], np.linspace(0.0, 180.0, STEPS)),
        "methyl": turned((root, end), rotor, np.linspace(0.0, 120.0, STEPS)),
    }


def make(folder: Path) -> None:
    """Write the scans."""
    from make_acac import enol
    from tblite.ase import TBLite

    folder.mkdir(parents=True, exist_ok=True)
    start = enol()
    for name, frames in scans(start, TBLite(method="GFN2-xTB", verbosity=0)).items():
        for frame in frames:
            frame.calc = TBLite(method="GFN2-xTB", verbosity=0)
            labels = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
            frame.calc = SinglePointCalculator(frame, **labels)
        ase.io.write(folder / f"{name}.xyz", frames)


def errors(folder: Path, models: list[Path]) -> None:
    """Print the table."""
    print("| scan | model | barrier, xTB | barrier | largest error, meV | forces, meV/A |")
    print("|---|---|---|---|---|---|")
    for model in models:
        calculator = calculator_of(model)
        for file in sorted(folder.glob("*.xyz")):
            frames = ase.io.read(file, ":")
            right = np.array([frame.get_potential_energy() for frame in frames])
            forces = np.array([frame.get_forces() for frame in frames])
            found, found_forces = [], []
            for frame in frames:
                frame.calc = calculator
                found.append(frame.get_potential_energy())
                found_forces.append(frame.get_forces())
            energies = np.array(found)
            right, energies = right - right[0], energies - energies[0]
            rmse = float(np.sqrt(((np.array(found_forces) - forces) ** 2).mean()))
            print(
                f"| {file.stem} | {model} | {1e3 * right.max():.0f} | {1e3 * energies.max():.0f} "
                f"| {1e3 * np.abs(energies - right).max():.1f} | {1e3 * rmse:.1f} |"
            )


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        errors(Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
