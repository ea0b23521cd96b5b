"""Golden checkpoints: small ones of every released version, with their predictions inside.

A golden file is a checkpoint like any other (``atomtrain export`` takes it) with one more key,
``golden``: the structures and what the model predicted for them when the file was written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from atomtrain.errors import CheckpointError, OutputError
from atomtrain.model import Predictor
from atomtrain.plugins.restore import restore
from atomtrain.training.checkpoint import load_checkpoint, save_checkpoint
from atomtrain_testing import structures
from atomtrain_testing.checks import ConformanceError, expect_equal, require
from atomtrain_testing.predictions import graph_of
from atomtrain_testing.subject import Subject
from atomtrain_testing.training import quiet, train

TOLERANCE = 1e-6
"""A checkpoint is read on other machines than wrote it."""


def write_golden(subject: Subject, folder: Path) -> Path:
    """Train (two epochs, where there are any) and write ``v<model version>-<trainer version>.ckpt`` into ``folder``.

    An existing file is refused (OutputError): what was released does not change.
    """
    info = subject.architecture.info
    path = folder / f"v{info.model_version}-{info.trainer_version}.ckpt"
    if path.exists():
        raise OutputError(
            f"'{path}' exists: a golden checkpoint is written once for a version. Raise the version "
            "in describe_architecture, or delete the file if that version was never released"
        )
    folder.mkdir(parents=True, exist_ok=True)
    done = train(subject, [subject.main], num_epochs=2)
    checkpoint = _without_folder(done.outcome.checkpoint, str(done.folder))
    predictor = restore(checkpoint, "export").predictor
    frames = list(structures.awkward(subject.atomic_types).values())[:3]
    checkpoint["golden"] = {
        "structures": [
            {
                "numbers": atoms.numbers.tolist(),
                "positions": torch.from_numpy(atoms.positions),
                "cell": torch.from_numpy(np.array(atoms.cell.array)),
                "pbc": [bool(p) for p in atoms.pbc],
            }
            for atoms in frames
        ],
        "predictions": _predictions(predictor, frames),
    }
    save_checkpoint(checkpoint, path)
    return path


def golden_files(subject: Subject) -> list[Path]:
    """The golden files of the subject, oldest first by name."""
    if subject.golden is None or not subject.golden.is_dir():
        return []
    return sorted(subject.golden.glob("*.ckpt"))


def check_golden(subject: Subject, path: Path) -> tuple[int, int]:
    """Whether a golden file loads in all three contexts and predicts what it did.

    Returns its versions of model and trainer. Raises ConformanceError.
    """
    try:
        checkpoint = load_checkpoint(path)
        golden = checkpoint.pop("golden", None)
        require(golden is not None, f"'{path}' was not written by 'atomtrain check --write-golden'")
        versions = checkpoint["architecture"]
        what = f"'{path.name}' (model {versions['model_version']}, trainer " + (
            f"{versions['trainer_version']})"
        )
        frames = [
            Atoms(
                numbers=one["numbers"],
                positions=one["positions"].numpy(),
                cell=one["cell"].numpy(),
                pbc=one["pbc"],
            )
            for one in golden["structures"]
        ]
        restored = restore(checkpoint, "export")
        predictor, upgraded = restored.predictor, restored.checkpoint
        found = _predictions(predictor, frames)
        for name, wanted in golden["predictions"].items():
            require(name in found, f"{what} no longer predicts '{name}'")
            expect_equal(found[name], wanted, TOLERANCE, f"{what}: '{name}'")
        again: dict[str, Any] = {
            "model": upgraded["hypers"]["model"],
            "atomic_types": predictor.dataset_info.atomic_types,
        }
        epochs = int((upgraded.get("trainer") or {}).get("epoch", 0)) + 1
        train(subject, [subject.main], restart=path, num_epochs=epochs, **again)
        with quiet():
            restore(checkpoint, "finetune")
        if subject.finetunes:
            finetune = {"read_from": str(path)}
            train(subject, [subject.main], finetune=finetune, num_epochs=1, **again)
    except (CheckpointError, KeyError, RuntimeError) as error:
        raise ConformanceError(f"'{path.name}': {type(error).__name__}: {error}") from error
    return int(versions["model_version"]), int(versions["trainer_version"])


def _predictions(predictor: Predictor, frames: list[Atoms]) -> dict[str, Tensor]:
    """Every target of every atom, flat, with the weights in float64."""
    predictor.model.double().eval()
    graph = graph_of(predictor.model, frames)
    names = list(predictor.dataset_info.targets)
    found = predictor(graph, names)
    return {n: torch.cat([b.detach().flatten(1) for b in found[n]], dim=1) for n in names}


def _without_folder(value: Any, folder: str) -> Any:
    """The same data with paths in ``folder`` made relative: a released file names no machine."""
    if isinstance(value, str):
        return value.replace(f"{folder}/", "")
    if isinstance(value, dict):
        return {k: _without_folder(v, folder) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folder(v, folder) for v in value]
    return value
