"""What fine-tuning learns and what it forgets, by method: a table in Markdown.

``python benchmarks/make_acetaldehyde.py data`` makes the data; ``python benchmarks/finetuning.py data`` trains each
architecture on ethanol, goes on with 50 frames of acetaldehyde by each method (5 of them to choose the best model by),
and shows RMSE on 100 frames of either that nobody was trained on, processor seconds and peak memory of the whole
command. Logs and models are left in the folder. ``--architectures mace`` does the same with a small MACE, run by the
Python of an environment that has it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ARCHITECTURES = {
    "ace": {"epochs": 30, "rate": 0.01, "tuned_rate": 0.003, "lora_rate": 0.003},
    "soap-bpnn": {"epochs": 60, "rate": 1e-3, "tuned_rate": 5e-4, "lora_rate": 1.5e-3},
    "mace": {"epochs": 40, "rate": 0.01, "tuned_rate": 0.003, "lora_rate": 0.003},
}
MODELS: dict[str, dict[str, Any]] = {"mace": {"hidden_irreps": "16x0e + 16x1o"}}
TUNED_EPOCHS = 60
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "heads": {"method": "heads"},
    "lora": {"method": "lora"},
    "replay": {"method": "replay"},
    "lora_replay": {"method": "lora", "replay": {}},
}


def section(file: str) -> dict[str, Any]:
    target = {"key": "energy", "unit": "eV", "forces": True}
    return {
        "systems": {"read_from": file, "length_unit": "angstrom"},
        "targets": {"energy": target},
    }


def options(architecture: str, method: str = "") -> dict[str, Any]:
    """Of the first training, or of one that goes on from it."""
    about = ARCHITECTURES[architecture]
    training: dict[str, Any] = {
        "num_epochs": about["epochs"],
        "batch_size": 8,
        "log_interval": 20,
        "learning_rate": about["rate"],
    }
    sections, test = ["ethanol.xyz"], "ethanol_test.xyz"
    if method:
        rate = about["lora_rate" if "lora" in method else "tuned_rate"]
        training |= {"num_epochs": TUNED_EPOCHS, "learning_rate": rate}
        training["finetune"] = {
            "read_from": f"{architecture}_base.ckpt",
            "old_data": section("ethanol_test.xyz"),
            **METHODS[method],
        }
        sections = ["acetaldehyde.xyz", *sections] if "replay" in method else ["acetaldehyde.xyz"]
        test = "acetaldehyde_test.xyz"
    return {
        "seed": 0,
        "final_eval": {"report": False},
        "architecture": {
            "name": architecture,
            "model": MODELS.get(architecture, {}),
            "training": training,
        },
        "training_set": [section(file) for file in sections],
        "validation_set": [0.1] * len(sections),
        "test_set": [section(test)],
    }


def run(folder: Path, name: str, given: dict[str, Any]) -> dict[str, float]:
    """Train in a process of its own: processor seconds and peak memory (MB)."""
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "atomtrain", "train", f"{name}.yaml", "-o", f"{name}.pt"]
    with open(folder / f"{name}.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed; see {folder / name}.log")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": used.ru_utime + used.ru_stime,
        "memory": used.ru_maxrss * unit / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architectures", nargs="+", default=["ace", "soap-bpnn"])
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for architecture in arguments.architectures:
        for method in ("", *METHODS):
            name = f"{architecture}_{method or 'base'}"
            found[name] = run(arguments.folder, name, options(architecture, method))
            print(name, json.dumps(found[name]), flush=True)


if __name__ == "__main__":
    main()
