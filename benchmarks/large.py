"""Data that outgrow memory: how soon a training begins, how much memory it needs, how fast it goes.

``python benchmarks/large.py 10000 100000 1000000 --budget "500 MB"``

For each number of molecules (nine atoms, energies and forces, made here from random numbers and kept under
``--work``) a training of SOAP-BPNN with batches of 64 is started in a process of its own and ended after
``--seconds`` of steps.
What is told: seconds from the start of the process to its first step, structures a second from then on, the largest
resident memory, and bytes read from files. ``--processes 2`` starts it under torchrun. ``--options KEY=VALUE`` as
for ``atomtrain train -r``. See ``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from atomtrain.runs import plan, prepare, together, workplace
from atomtrain.runs.plan import Plan
from atomtrain.training.distributed import Processes
from atomtrain.training.observers import Observer

MOLECULE = (
    ("C", 1.17, -0.41, 0.0), ("C", -0.05, 0.55, 0.0), ("O", -1.19, -0.27, 0.0),
    ("H", 2.10, 0.16, 0.0), ("H", 1.19, -1.05, 0.89), ("H", 1.19, -1.05, -0.89),
    ("H", -0.01, 1.19, 0.89), ("H", -0.01, 1.19, -0.89), ("H", -1.96, 0.31, 0.0),
)  # fmt: skip
"""ethanol, in angstrom"""
NUMBERS = {"H": 1, "C": 6, "O": 8}
SPREAD = 0.08  # angstrom
PIECE = 10_000
BATCH = 64


def make(n: int, folder: Path) -> None:
    """``n`` distorted molecules as a data set on disk, in float32 as large sets come."""
    from atomtrain.data.store_writer import StoreWriter
    from atomtrain.files import replacing_folder
    from atomtrain.frame import Frame

    rng = np.random.default_rng(0)
    numbers = np.array([NUMBERS[symbol] for symbol, *_ in MOLECULE], dtype=np.int64)
    places = np.array([place for _, *place in MOLECULE])
    cell, pbc = np.zeros((3, 3)), np.zeros(3, dtype=bool)
    with replacing_folder(folder) as temporary:
        writer = StoreWriter(temporary)
        for start in range(0, n, PIECE):
            m = min(PIECE, n - start)
            moved = SPREAD * rng.standard_normal((m, *places.shape))
            positions = (places + moved).astype(np.float32)
            forces = (-20.0 * moved).astype(np.float32)
            energies = 10.0 * np.square(moved).sum((1, 2))
            frames = [
                Frame(numbers, positions[k], cell, pbc, {"energy": energies[k]}, {"forces": forces[k]})
                for k in range(m)
            ]  # fmt: skip
            writer.add(frames, "made", start)
        writer.close({}, f"{n} molecules of nine atoms")


def train(arguments: argparse.Namespace) -> None:
    """In a process of its own: train until the time is over, and say what was seen."""
    begin = time.time() - float(os.environ["STARTED"])
    options = {
        "seed": 1,
        "architecture": {
            "name": "soap-bpnn",
            "training": {
                "num_epochs": 2,
                "batch_size": BATCH,
                "memory_budget": arguments.budget,
                "distributed": arguments.processes > 1,
            },
        },
        "training_set": {
            "systems": {"read_from": arguments.store},
            "targets": {"energy": {"unit": "eV", "forces": True}},
        },
        "validation_set": 0.1,
        "test_set": 0,
        "final_eval": False,
    }
    seen: dict[str, float] = {"imports": begin}

    class Watch(Observer):
        """Notes when steps are done."""

        def on_step(self, epoch: int, step: int, n_steps: int) -> None:
            now = time.time() - float(os.environ["STARTED"])
            seen.setdefault("first step", now)
            seen["last step"] = now
            seen["steps"] = step + epoch * n_steps
            if now - seen["first step"] > arguments.seconds:
                print("RESULT " + json.dumps(seen | usage()), flush=True)
                os._exit(0)

    with together(options, arguments.options) as processes:
        planned = plan(options, arguments.options)
        run(planned, processes, Watch())
    print("RESULT " + json.dumps(seen | usage()), flush=True)
    os._exit(0)


def run(planned: Plan, processes: Processes, watch: Observer) -> None:
    """Train what is planned, watched."""
    with workplace(planned, Path("outputs"), processes) as place:
        prepared = prepare(planned, place, None)
        prepared.run.observers.append(watch)
        prepared.run.rehearse = None
        prepared.train()


def usage() -> dict[str, float]:
    """Peak memory (MB), processor seconds and megabytes read of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    lines = Path("/proc/self/io").read_text().splitlines()
    io = dict(line.split(": ") for line in lines)
    return {
        "memory": used.ru_maxrss / 1024,
        "cpu": used.ru_utime + used.ru_stime,
        "read": int(io["rchar"]) / 1e6,
    }


def measure(n: int, arguments: argparse.Namespace) -> str:
    """One row of the table."""
    store = (arguments.work / f"molecules_{n}").resolve()
    if not store.exists():
        arguments.work.mkdir(parents=True, exist_ok=True)
        make(n, store)
    run = [sys.executable]
    if arguments.processes > 1:
        run += ["-m", "torch.distributed.run", "--nproc-per-node", str(arguments.processes)]
    run += [__file__, "--store", str(store), "--budget", arguments.budget]
    run += ["--seconds", str(arguments.seconds), "--processes", str(arguments.processes)]
    for option in arguments.options:
        run += ["--options", option]
    environment = {**os.environ, "STARTED": str(time.time())}
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=arguments.work)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        return f"| {n} | failed: {done.stderr[-2000:]} |"
    seen = json.loads(found[0].removeprefix("RESULT "))
    steps = max(1.0, seen["steps"] - 1)
    rate = BATCH * steps / max(1e-9, seen["last step"] - seen["first step"])
    return (
        f"| {n} | {seen['first step']:.1f} | {rate:.0f} | {seen['memory']:.0f} | {seen['read']:.0f} | "
        f"{seen['cpu']:.0f} |"
    )


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", type=int, nargs="*", metavar="N", help="structures")
    parser.add_argument("--budget", default="500 MB", help="memory_budget")
    parser.add_argument("--seconds", type=float, default=60.0, help="of steps")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--options", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks/large"))
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.store:
        train(arguments)
    print("| structures | first step after, s | structures/s | memory, MB | read, MB | CPU s |")
    print("|---|---|---|---|---|---|")
    for n in arguments.numbers:
        print(measure(n, arguments), flush=True)


if __name__ == "__main__":
    main()
