"""Whether chosen structures teach more than random ones: a learning curve.

``python benchmarks/selection.py --pool pool.xyz --test test.xyz --start 50 --add 50 --seeds 2 FOLDER``

A potential (ACE) is trained on ``--start`` random frames of the pool and gets uncertainties (``atomtrain-llpr``); from
the rest ``--add`` frames are chosen by each way of ``atomtrain select``, and at random; a potential is trained anew on
both together. Frames to validate by, a fifth as many, are random and the same for all. RMSE on the test file after as
many steps, in meV/atom and meV/A: the mean, then each seed. Extended xyz with ``energy`` (eV) and forces.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from statistics import mean

import ase.io
from ase import Atoms

WAYS = ("random", "uncertainty", "distance", "both")
STEPS = 1500
KEYS = ("energy", "energy:forces")


def run(folder: Path, *arguments: str) -> None:
    """An atomtrain command in a folder; what it prints goes to a log beside its files."""
    with open(folder / "log", "a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "atomtrain", *arguments]
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=True)


def trained(folder: Path, frames: list[Atoms], validation: list[Atoms], test: Path) -> dict:
    """A potential of these frames in a folder, ``model.pt``; its errors on the test file."""
    folder.mkdir(parents=True)
    batch = 4
    sets = {"training_set": "train.xyz", "validation_set": "val.xyz", "test_set": str(test)}
    ase.io.write(folder / "train.xyz", frames)
    ase.io.write(folder / "val.xyz", validation)
    options = {
        "seed": 1,
        "architecture": {
            "name": "ace",
            "training": {"batch_size": batch, "num_epochs": STEPS * batch // len(frames)},
        },
        **{name: section(file) for name, file in sets.items()},
    }
    (folder / "options.yaml").write_text(json.dumps(options))  # JSON is YAML
    run(folder, "train", "options.yaml")
    found = next(folder.glob("outputs/*/*/evaluation.json"))
    return json.loads(found.read_text())["errors"]["test"]


def section(file: str) -> dict:
    """A data set of the options."""
    systems = {"read_from": file, "length_unit": "angstrom"}
    return {"systems": systems, "targets": {"energy": {"key": "energy", "unit": "eV"}}}


def with_uncertainty(folder: Path) -> None:
    """``uncertain.pt`` beside ``model.pt``."""
    llpr = {
        "seed": 1,
        "architecture": {"name": "llpr", "training": {"model_checkpoint": "model.ckpt"}},
        **{
            name: section(f"{file}.xyz")
            for name, file in (("training_set", "train"), ("validation_set", "val"))
        },
    }
    (folder / "uncertain.yaml").write_text(json.dumps(llpr))
    run(folder, "train", "uncertain.yaml", "-o", "uncertain.pt")


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--start", type=int, default=50)
    parser.add_argument("--add", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    pool, test = ase.io.read(given.pool, ":"), given.test.resolve()
    results: dict[str, list[dict]] = {}
    for seed in range(given.seeds):
        order = list(range(len(pool)))
        random.Random(seed).shuffle(order)
        n_val = given.start // 5
        val = [pool[k] for k in order[:n_val]]
        start = [pool[k] for k in order[n_val : n_val + given.start]]
        rest = [pool[k] for k in order[n_val + given.start :]]
        first = given.folder / f"start-{seed}"
        results.setdefault("start", []).append(trained(first, start, val, test))
        with_uncertainty(first)
        ase.io.write(first / "rest.xyz", rest)
        for way in WAYS:
            if way == "random":
                chosen = rest[: given.add]
            else:
                run(first, "select", "rest.xyz", "-m", "uncertain.pt", "-n", str(given.add), "--by", way,
                    "--known", "train.xyz", "-o", f"{way}.xyz")  # fmt: skip
                frames = ase.io.read(first / f"{way}.xyz", ":")
                chosen = [rest[atoms.info["select_frame"]] for atoms in frames]
            folder = given.folder / f"{way}-{seed}"
            results.setdefault(way, []).append(trained(folder, start + chosen, val, test))
    for way, found in results.items():
        rows = [[1e3 * mean(one[key]["rmse"] for one in found) for key in KEYS]]
        rows += [[1e3 * one[key]["rmse"] for key in KEYS] for one in found]
        print(way, *(f"{energy:.2f} {forces:.1f}" for energy, forces in rows), sep="  ")


if __name__ == "__main__":
    main()
