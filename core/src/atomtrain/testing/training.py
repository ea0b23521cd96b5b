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

from atomtrain.data import Datasets, build_datasets
from atomtrain.model import Predictor
from atomtrain.options import complete, load_options, validate_hypers
from atomtrain.testing import structures
from atomtrain.testing.checks import require
from atomtrain.testing.examples import Example
from atomtrain.testing.subject import Subject
from atomtrain.training.checkpoint import (
    checkpoint_header,
    load_checkpoint,
    save_checkpoint,
)
from atomtrain.training.observers import EpochRecord, Observer
from atomtrain.training.run import TrainingOutcome, TrainingRun
from atomtrain.training.start import from_finetune, from_restart, from_scratch

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
    base_precision: int = 32,
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
        "base_precision": base_precision,
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
    loaded = load_options(options(subject, folder, examples, **given))
    architecture = subject.architecture
    cls = architecture.model_hypers_class()
    model_hypers = validate_hypers(cls, loaded.architecture.model, (), loaded.source)
    hypers = subject.trainer_hypers(**loaded.architecture.training)
    data = build_datasets(loaded, architecture.info.default_kind)
    checkpoint = None
    with quiet():
        if restart is not None:
            checkpoint = architecture.upgrade_checkpoint(load_checkpoint(restart))
            predictor = from_restart(checkpoint, model_hypers, hypers, data.info, data.fingerprint)
        elif hypers.finetune is not None:
            predictor = from_finetune(architecture, hypers, data.info, data.train, loaded.seed)
        else:
            predictor = from_scratch(
                architecture, model_hypers, hypers, data.info, data.train, loaded.seed
            )
        start = {k: v.detach().clone() for k, v in predictor.model.state_dict().items()}
        completed = complete(loaded, model_hypers, hypers)
        losses = Losses()
        run = TrainingRun(
            predictor=predictor,
            dataset_info=predictor.dataset_info,
            hypers=hypers,
            train=data.train,
            validation=data.validation,
            device=torch.device("cpu"),
            dtype=torch.float64 if loaded.base_precision == 64 else subject.dtype,
            seed=loaded.seed,
            directory=folder,
            header=checkpoint_header(
                architecture=architecture.identity(),
                options=completed,
                model_hypers=model_hypers.model_dump(mode="json"),
                dataset_info=predictor.dataset_info,
                splits=data.splits,
                fingerprint=data.fingerprint,
            ),
            checkpoint=checkpoint,
            observers=[losses],
        )
        outcome = architecture.train_model(predictor.model, run)
    require(
        isinstance(outcome, TrainingOutcome),
        f"train_model returns {type(outcome).__name__}, no TrainingOutcome",
    )
    path = folder / "model.ckpt"
    save_checkpoint(outcome.checkpoint, path)
    # a copy: the outcome's own are those of the living model
    weights = {k: v.clone() for k, v in outcome.checkpoint["model"]["last"].items()}
    return Trained(folder, data, predictor, outcome, path, losses.validation, start, weights)


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
