"""Trainings of seconds for the checks: the parts of ``atomtrain train`` without its files.

Data and options are written and read as users' are; what is left out is the export, so that a
training can be checked of a model that does not export.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import torch
import yaml

from atomtrain.data import Datasets
from atomtrain.model import Predictor
from atomtrain.runs import Workplace, plan, prepare
from atomtrain.training.checkpoint import save_checkpoint
from atomtrain.training.device import choose_dtype
from atomtrain.training.observers import EpochRecord, Observer
from atomtrain.training.run import TrainingOutcome
from atomtrain_testing import structures
from atomtrain_testing.checks import require
from atomtrain_testing.examples import Example
from atomtrain_testing.subject import Subject

STRUCTURES = 6


class Losses(Observer):
    """Remembers the loss of every epoch."""

    def __init__(self) -> None:
        self.validation: list[float] = []

    def on_epoch(self, record: EpochRecord) -> None:
        """Take it down."""
        self.validation.append(record.validation_loss)


@dataclass
class Trained:
    """What a training left: its checkpoint, the weights it began and ended with, its losses."""

    folder: Path
    data: Datasets
    predictor: Predictor
    outcome: TrainingOutcome
    checkpoint: Path
    losses: list[float]
    start: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]


def options(
    subject: Subject,
    folder: Path,
    examples: Sequence[Example],
    *,
    seed: int = 1,
    n: int = STRUCTURES,
    model: Mapping[str, Any] | None = None,
    atomic_types: Sequence[int] | None = None,
    base_precision: int | None = None,
    **training: Any,
) -> Path:
    """Write data and an options file into ``folder``; returns the latter's path."""
    frames = structures.labelled(subject.atomic_types, n, seed)
    for atoms in frames:
        for example in examples:
            example.write(atoms)
    data = folder / "data.xyz"
    ase.io.write(data, frames, format="extxyz")
    section = {
        "systems": {"read_from": str(data), "length_unit": "angstrom"},
        "targets": {example.name: dict(example.section) for example in examples},
    }
    values = {
        "seed": seed,
        "device": "cpu",
        "base_precision": base_precision or subject.precision,
        "architecture": {
            "name": subject.name,
            "atomic_types": list(atomic_types or subject.atomic_types),
            "model": dict(subject.model_hypers if model is None else model),
            "training": {"batch_size": 3, "num_workers": 0, **subject.training_hypers, **training},
        },
        "training_set": section,
        "validation_set": section,
    }
    path = folder / "options.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def train(
    subject: Subject,
    examples: Sequence[Example],
    *,
    restart: Path | None = None,
    **given: Any,
) -> Trained:
    """Train from scratch, from ``restart``, or from what ``finetune`` names; see :func:`options`."""
    folder = subject.new_folder("training")
    planned = plan(options(subject, folder, examples, **given))
    losses = Losses()
    with quiet():
        place = Workplace(
            folder,
            torch.device("cpu"),
            choose_dtype(planned.options.base_precision, subject.architecture.info.dtypes),
        )
        prepared = prepare(planned, place, restart)
        predictor = prepared.run.predictor
        start = {k: v.detach().clone() for k, v in predictor.model.state_dict().items()}
        prepared.run.observers.append(losses)
        outcome = prepared.train()
    require(
        isinstance(outcome, TrainingOutcome),
        f"train_model returns {type(outcome).__name__}, no TrainingOutcome",
    )
    path = folder / "model.ckpt"
    save_checkpoint(outcome.checkpoint, path)
    # a copy: the outcome's own are those of the living model
    weights = {k: v.clone() for k, v in outcome.checkpoint["model"]["last"].items()}
    return Trained(
        folder, prepared.data, predictor, outcome, path, losses.validation, start, weights
    )


def trained(subject: Subject) -> Trained:
    """A training of four epochs on the main target with checkpoints, run once for all checks."""
    key = "_trained"
    if not hasattr(subject, key):
        done = train(subject, [subject.main], num_epochs=4, checkpoint_interval=2)
        setattr(subject, key, done)
    found: Trained = getattr(subject, key)
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the log of a training to ourselves."""
    log = logging.getLogger("atomtrain")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
