"""Time the classifier against metatrain's: the same data, options, and backbone hypers.

1000 copper structures of about 30 atoms in four crystal structures (made here with ASE); a SOAP-BPNN
with default hypers is trained for an epoch by either side and becomes its backbone. What is timed is
the whole command: imports, reading, features, all epochs, final evaluation, export. Ours runs
all epochs; the peer, unless ``--whole`` is given, runs a few and a few more, and the difference is
extrapolated.

See ``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from statistics import median

import ase.io
import numpy as np
from ase.build import bulk
from compare_peer import BenchmarkError, Side, Usage, machine, peer_command, run, versions

PHASES = ("fcc", "bcc", "hcp", "diamond")
SIZES = {"fcc": (2, 2, 2), "bcc": (4, 2, 2), "hcp": (2, 2, 2), "diamond": (2, 2, 1)}
N_STRUCTURES = 1000

DATA = """
training_set:
  systems: {read_from: data.xyz, length_unit: angstrom}
  targets:
"""
END = """
validation_set: 0.1
test_set: 0.0
"""
BACKBONE = f"""
seed: 1
device: cpu
architecture: {{name: soap_bpnn, training: {{num_epochs: 1, batch_size: 16}}}}
{DATA}    energy: {{key: energy, unit: eV, forces: false, stress: false}}
{END}"""


def classifier(epochs: int, name: str) -> str:
    """The options of a classification, understood by both sides but for the architecture's name."""
    return f"""
seed: 1
device: cpu
architecture:
  name: {name}
  training: {{model_checkpoint: backbone.ckpt, num_epochs: {epochs}, batch_size: 32}}
{DATA}    mtt::phase_probabilities: {{key: one_hot, num_subtargets: 4}}
{END}"""


def write_data(path: Path) -> float:
    """The structures; gives their mean number of atoms."""
    rng = np.random.default_rng(0)
    frames = []
    for k in range(N_STRUCTURES):
        phase = PHASES[k % len(PHASES)]
        if phase == "hcp":
            cell = bulk("Cu", "hcp", a=2.56, c=4.18, orthorhombic=True)
        else:
            cell = bulk(
                "Cu", phase, a={"fcc": 3.62, "bcc": 2.96, "diamond": 5.91}[phase], cubic=True
            )
        atoms = cell.repeat(SIZES[phase])
        atoms.set_cell(atoms.cell.array * (1 + 0.02 * rng.normal()), scale_atoms=True)
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        atoms.info["energy"] = float(len(atoms) * rng.normal())
        atoms.info["one_hot"] = np.eye(len(PHASES))[PHASES.index(phase)]
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return float(np.mean([len(atoms) for atoms in frames]))


def train(side: Side, folder: Path, options: str, output: str = "model.pt") -> Usage:
    """One training by the command line."""
    (folder / "options.yaml").write_text(options)
    return run([side.command, "train", "options.yaml", "-o", output], folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--mtt", type=Path, help="the peer's command, if it is installed")
    parser.add_argument("--atomtrain", type=Path, default=Path(sys.executable).parent / "atomtrain")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--few", type=int, nargs=2, default=(2, 6), metavar="N")
    parser.add_argument("--whole", action="store_true", help="the peer runs all epochs, too")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    mtt = arguments.mtt.absolute() if arguments.mtt else peer_command(work)
    peer, ours = Side("metatrain", mtt, 1), Side("atomtrain", arguments.atomtrain.absolute(), 1)
    described = machine()

    folders = {}
    for side in (peer, ours):
        folder = folders[side.name] = work / f"classifier-{side.name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        n_atoms = write_data(folder / "data.xyz")
        train(side, folder, BACKBONE, "backbone.pt")
    found: dict[str, list[Usage]] = {"metatrain": [], "atomtrain": []}
    for _ in range(arguments.repetitions):
        mine = train(ours, folders["atomtrain"], classifier(arguments.epochs, "classifier"))
        found["atomtrain"].append(mine)
        theirs = "experimental.classifier"
        if arguments.whole:
            usage = train(peer, folders["metatrain"], classifier(arguments.epochs, theirs))
        else:
            low, high = arguments.few
            a, b = (train(peer, folders["metatrain"], classifier(n, theirs)) for n in (low, high))
            more = (arguments.epochs - low) / (high - low)
            usage = Usage(
                a.seconds + more * (b.seconds - a.seconds),
                a.cpu_seconds + more * (b.cpu_seconds - a.cpu_seconds),
                max(a.peak_mib, b.peak_mib),
            )
        found["metatrain"].append(usage)

    print(f"Machine: {described}.\n{versions(peer)}; {versions(ours)}.")
    print(
        f"{N_STRUCTURES} structures of {n_atoms:.0f} atoms on average, {arguments.epochs} epochs."
    )
    print("\n| | metatrain | atomtrain | ratio |\n|---|---|---|---|")
    for what, field in (("wall time, s", "seconds"), ("processor time, s", "cpu_seconds")):
        a, b = (median(getattr(u, field) for u in found[s.name]) for s in (peer, ours))
        print(f"| {what} | {a:.1f} | {b:.1f} | {a / b:.0f} |")
    a, b = (median(u.peak_mib for u in found[s.name]) for s in (peer, ours))
    print(f"| peak memory, MiB | {a:.0f} | {b:.0f} | {a / b:.1f} |")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
