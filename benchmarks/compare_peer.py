"""Time atomtrain against metatrain: the same options files, the same data, the same machine.

Run it with the Python that has ``atomtrain``, ``atomtrain-soap-bpnn`` and ``metatomic-ase``; the
peer gets a virtual environment of its own under ``--work``. See ``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"
PARTS = ("help", "ethanol", "crystal", "liquid", "model")
PEER_REQUIREMENTS = ("torch==2.13.0", "metatrain[soap-bpnn]==2026.4.1", "metatomic-ase")


class BenchmarkError(Exception):
    """A command of one of the two sides failed; the message holds the end of its output."""


@dataclass(frozen=True)
class Side:
    """One of the two programs: how to call it and how many epochs give a readable time."""

    name: str
    command: Path
    epoch_factor: int  # the faster side runs more epochs, so that both are timed over seconds

    @property
    def python(self) -> Path:
        """The interpreter of the environment that the command lives in."""
        return self.command.parent / "python"


@dataclass(frozen=True)
class Workload:
    """A training to be timed. ``structures`` is cut from the front of a seeded shuffle."""

    name: str
    data: Path
    epochs: int  # of the slower side's short run
    batch_size: int
    validation_fraction: float
    max_structures: int
    labels: tuple[str, ...]
    pairs_only: str  # a memory budget of atomtrain that holds pair lists and nothing else
    variant: str = ""
    model: dict[str, object] = field(default_factory=dict)  # hypers of both sides
    ours: dict[str, object] = field(default_factory=dict)  # of atomtrain's training alone

    @property
    def title(self) -> str:
        """What it is called in the report."""
        return f"{self.name}{f' ({self.variant})' if self.variant else ''}, batch {self.batch_size}"


@dataclass(frozen=True)
class Usage:
    """What one process took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


@dataclass
class Series:
    """The repetitions of one number on both sides; index i of the two was measured in turn."""

    what: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, side: str, value: float) -> None:
        """Append one repetition."""
        self.values.setdefault(side, []).append(value)

    def row(self, ours: str, peer: str) -> str:
        """Format as a row of the table: medians, and the ratio with its median and range."""
        ratios = [
            theirs / own for own, theirs in zip(self.values[ours], self.values[peer], strict=True)
        ]
        spread = f"**{median(ratios):.1f}** ({min(ratios):.1f} to {max(ratios):.1f})"
        own, theirs = median(self.values[ours]), median(self.values[peer])
        return f"| {self.what}, {self.unit} | {theirs:.3g} | {own:.3g} | {spread} |"


def run(command: list[str | Path], folder: Path) -> Usage:
    """Run a command to its end and account for it, children included."""
    log = folder / "benchmark.log"
    with log.open("w") as stream:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, stdout=stream, stderr=subprocess.STDOUT
        )
        # wait4, not communicate: only it tells the peak memory of this process and its children.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join(log.read_text().splitlines()[-20:])
        raise BenchmarkError(f"{' '.join(map(str, command))} failed in {folder}:\n{tail}")
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / per_mib)


def peer_command(work: Path) -> Path:
    """Return the peer's ``mtt``, installing it into its own environment the first time."""
    environment = work / "peer"
    command = environment / "bin" / "mtt"
    if not command.exists():
        print(f"installing the peer into {environment} ...", flush=True)
        work.mkdir(parents=True, exist_ok=True)
        run([sys.executable, "-m", "venv", "--clear", environment], work)
        run([environment / "bin" / "pip", "install", *PEER_REQUIREMENTS], work)
    return command


def read_frames(path: Path) -> Iterator[str]:
    """Yield the structures of an extended xyz file as the text they are: nothing is rewritten."""
    with path.open() as stream:
        for count in stream:
            if count.strip():
                yield count + "".join(next(stream) for _ in range(int(count) + 1))


def prepare(workload: Workload, folder: Path) -> int:
    """Write the training and validation files both sides read; return the steps of an epoch."""
    frames = list(read_frames(workload.data))
    random.Random(0).shuffle(frames)
    frames = frames[: workload.max_structures]
    n_validation = max(1, round(workload.validation_fraction * len(frames)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "validation.xyz").write_text("".join(frames[:n_validation]))
    (folder / "training.xyz").write_text("".join(frames[n_validation:]))
    return (len(frames) - n_validation) // workload.batch_size


def variants(workload: Workload) -> list[Workload]:
    """As it is, with ``legacy: false``, and with room for nothing but pair lists (ours alone)."""
    return [
        workload,
        replace(workload, variant="legacy: false", model={"legacy": False}),
        replace(workload, variant="pair lists alone", ours={"memory_budget": workload.pairs_only}),
    ]


def write_options(
    workload: Workload, data: Path, epochs: int, device: str, path: Path, ours: bool
) -> None:
    """Write the options file, the same for both. (JSON is YAML.) Everything else is default."""
    target: dict[str, object] = {"key": "energy", "unit": "eV"}
    target |= {label: {"key": label} for label in workload.labels}

    def section(name: str) -> dict[str, object]:
        systems = {"read_from": str(data / f"{name}.xyz"), "length_unit": "angstrom"}
        return {"systems": systems, "targets": {"energy": target}}

    options = {
        "seed": 0,
        "device": device,
        "base_precision": 32,
        "architecture": {
            "name": "soap_bpnn",
            "model": workload.model,
            "training": {
                "batch_size": workload.batch_size,
                "num_epochs": epochs,
                **(workload.ours if ours else {}),
            },
        },
        "training_set": section("training"),
        "validation_set": section("validation"),
    }
    path.write_text(json.dumps(options, indent=2))


def train(
    side: Side, workload: Workload, data: Path, epochs: int, device: str, folder: Path
) -> Usage:
    """Train once in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ours = side.name == "atomtrain"
    write_options(workload, data, epochs, device, folder / "options.yaml", ours)
    return run([side.command, "train", "options.yaml"], folder)


def time_training(
    workload: Workload, sides: list[Side], repetitions: int, device: str, work: Path
) -> list[Series]:
    """Time an epoch, validation included, as the difference of a run of 2n epochs and one of n.

    The difference cancels imports, reading, neighbour lists and the evaluation at the end; what it
    cancels is reported as a row of its own, since a user waits for that too.
    """
    data = work / workload.name / "data"
    steps = prepare(workload, data)
    label = workload.title
    step = Series(f"{label}: training step, validation included", "ms")
    work_done = Series(f"{label}: the same in processor time, all threads and workers", "ms")
    rest = Series(f"{label}: start, end and all else of a run", "s")
    memory = Series(f"{label}: peak memory", "MiB")
    for repetition in range(repetitions):
        for side in sides if repetition % 2 == 0 else sides[::-1]:
            epochs = workload.epochs * side.epoch_factor
            folder = work / workload.name / side.name
            # every variant has the folder to itself; the last one's runs stay
            short = train(side, workload, data, epochs, device, folder)
            long = train(side, workload, data, 2 * epochs, device, folder)
            epoch = (long.seconds - short.seconds) / epochs
            step.add(side.name, 1000 * epoch / steps)
            cpu = (long.cpu_seconds - short.cpu_seconds) / epochs
            work_done.add(side.name, 1000 * cpu / steps)
            rest.add(side.name, short.seconds - epochs * epoch)
            memory.add(side.name, long.peak_mib)
            print(
                f"{label} {side.name}: {1000 * epoch / steps:.2f} ms a step,"
                f" {1000 * cpu / steps:.2f} ms of processor time",
                flush=True,
            )
    return [step, work_done, rest, memory]


def time_help(sides: list[Side], repetitions: int, work: Path) -> Series:
    """Time ``--help``; the first call of each only warms the file cache."""
    series = Series("`--help`", "s")
    for repetition in range(repetitions + 1):
        for side in sides:
            usage = run([side.command, "--help"], work)
            if repetition > 0:
                series.add(side.name, usage.seconds)
    return series


def write_water(path: Path) -> None:
    """Write 14 boxes of 64 water molecules at the density of the liquid, turned and shaken.

    The labels only have to be there: EMT's, which means nothing for water.
    """
    import numpy as np
    from ase import Atoms
    from ase.build import molecule
    from ase.calculators.emt import EMT
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    side = 12.42  # angstrom: 64 molecules in 1 g/cm^3
    frames = []
    for seed in range(14):
        rng = np.random.default_rng(seed)
        box = Atoms(cell=[side] * 3, pbc=True)
        for site in np.ndindex(4, 4, 4):
            one = molecule("H2O")
            one.euler_rotate(*rng.uniform(0, 360, 3), center="COM")
            one.positions += (np.array(site) + 0.5) * side / 4 - one.get_center_of_mass()
            box += one
        box.rattle(0.05, rng=rng)
        emt = EMT()
        results = {"energy": emt.get_potential_energy(box), "forces": emt.get_forces(box)}
        box.calc = SinglePointCalculator(box, **results)
        frames.append(box)
    write(path, frames, format="extxyz")


def write_carbon(path: Path) -> None:
    """Write 192 rattled carbon atoms with 79 neighbours each; the labels only have to be there."""
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    frames = []
    for seed in range(12):
        atoms = bulk("C", "diamond", a=3.757, cubic=True).repeat((2, 3, 4))
        atoms.rattle(0.1, seed=seed)
        emt = EMT()
        energy = emt.get_potential_energy(atoms)
        forces = emt.get_forces(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    write(path, frames, format="extxyz")


def time_models(
    molecules: Path, sides: list[Side], repetitions: int, device: str, work: Path
) -> list[Series]:
    """Time energy and forces of exported models in ASE, each in its own environment.

    Weights do not change the time, so one epoch of training is enough.
    """
    carbon = work / "carbon.xyz"
    write_carbon(carbon)
    workloads = (
        Workload("carbon-192", carbon, 1, 2, 0.2, 12, ("forces",), ""),
        Workload("molecule", molecules, 1, 8, 0.2, 40, ("forces",), ""),
    )
    result = []
    for workload in workloads:
        data = work / workload.name / "data"
        prepare(workload, data)
        for side in sides:
            train(side, workload, data, 1, device, work / workload.name / side.name)
        series = Series(f"model in ASE, {workload.name}: energy and forces", "ms")
        for repetition in range(repetitions):
            for side in sides if repetition % 2 == 0 else sides[::-1]:
                folder = work / workload.name / side.name
                structure = data / "validation.xyz"
                run([side.python, HERE / "time_model.py", "model.pt", structure], folder)
                # The log may hold warnings of the libraries; the last line is the answer.
                last = (folder / "benchmark.log").read_text().splitlines()[-1]
                series.add(side.name, float(last))
                print(f"{series.what} {side.name}: {last} ms", flush=True)
        result.append(series)
    return result


def versions(side: Side) -> str:
    """Name the versions that matter in a side's environment; triton for the memory it takes."""
    code = (
        "import importlib.metadata as m\n"
        "for n in ('atomtrain', 'atomtrain-soap-bpnn', 'metatrain', 'torch', 'triton',"
        " 'torch-spex', 'metatomic-torch', 'metatomic-ase'):\n"
        "    try: print(n, m.version(n), end='; ')\n"
        "    except m.PackageNotFoundError: pass"
    )
    answer = subprocess.run([side.python, "-c", code], capture_output=True, text=True, check=True)
    return answer.stdout.rstrip("; ")


def machine() -> str:
    """Describe the machine, its load included: a busy one gives no figures worth keeping."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1] for line in info.open() if line.startswith("model name")]
        model = names[0].strip() if names else model
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "as torch chooses")
    return (
        f"{model}, {cores} cores (OMP_NUM_THREADS: {threads}), Python {platform.python_version()},"
        f" load at start {load:.1f}"
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ethanol", type=Path, default=EXAMPLES / "ethanol" / "ethanol.xyz", metavar="XYZ",
        help="molecules with energy and forces (default: the example in the repository)",
    )  # fmt: skip
    parser.add_argument(
        "--crystal", type=Path, default=EXAMPLES / "copper" / "copper.xyz", metavar="XYZ",
        help="crystals with energy, forces and stress (default: the example)",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", default=PARTS, help=", ".join(PARTS)
    )  # fmt: skip
    parser.add_argument(
        "--variants", action="store_true",
        help="train also with legacy: false, and with memory for pair lists alone",
    )  # fmt: skip
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--work", type=Path, default=HERE.parent / "build" / "benchmarks",
        help="where the peer is installed and the runs are made",
    )  # fmt: skip
    parser.add_argument("--mtt", type=Path, help="an mtt that is installed already")
    parser.add_argument(
        "--atomtrain", type=Path, default=Path(sys.executable).parent / "atomtrain",
        help="default: beside this Python",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=HERE / "results.md", help="the table is written here too"
    )
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, write it."""
    arguments = parse_arguments()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    mtt = arguments.mtt.absolute() if arguments.mtt else peer_command(work)
    peer = Side("metatrain", mtt, epoch_factor=1)
    ours = Side("atomtrain", arguments.atomtrain.absolute(), epoch_factor=4)
    sides, repetitions, device = [peer, ours], arguments.repetitions, arguments.device
    described = machine()

    rows: list[Series] = []
    if "help" in arguments.only:
        rows.append(time_help(sides, repetitions, work))
    ethanol, crystal = arguments.ethanol.resolve(), arguments.crystal.resolve()
    workloads = []
    if "ethanol" in arguments.only:
        workloads.append(Workload(ethanol.stem, ethanol, 4, 8, 1 / 6, 1200, ("forces",), "6 MB"))
    if "crystal" in arguments.only:
        labels = ("forces", "stress")
        workloads.append(Workload(crystal.stem, crystal, 6, 4, 0.1, 10**6, labels, "20 MB"))
    if "liquid" in arguments.only:
        water = work / "water.xyz"
        write_water(water)
        workloads.append(Workload("water-192", water, 10, 2, 1 / 7, 14, ("forces",), "6 MB"))
    for workload in workloads:
        for variant in variants(workload) if arguments.variants else [workload]:
            rows += time_training(variant, sides, repetitions, device, work)
    if "model" in arguments.only:
        rows += time_models(ethanol, sides, repetitions, device, work)

    lines = [
        f"Machine: {described}. Device: {device}.",
        *(f"{side.name}: {versions(side)}." for side in sides),
        f"Median of {repetitions} repetitions, in turn. Ratio: median (range); above 1, atomtrain is better.",
    ]
    table = ["| | metatrain | atomtrain | ratio |", "|---|---|---|---|"]
    table += [series.row(ours.name, peer.name) for series in rows]
    report = "\n\n".join([*lines, "\n".join(table)]) + "\n"
    arguments.output.write_text("# Measured\n\n" + report)
    raw = {f"{series.what}, {series.unit}": series.values for series in rows}
    (work / "raw.json").write_text(json.dumps(raw, indent=2))
    print(report)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
