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
from atomtrain.training.judge import Judge
from atomtrain.training.observers import EpochRecord, Observer, StartInfo
from atomtrain.training.predict import predict
from atomtrain.training.run import TrainingOutcome, TrainingRun
from atomtrain.training.sources import Sources
from atomtrain.training.terms import Objective
from atomtrain_testing import structures
from atomtrain_testing.checks import NotApplicable, require
from atomtrain_testing.examples import Example
from atomtrain_testing.subject import Subject

STRUCTURES = 6


class Heard(Observer):
    """Remembers what a training tells."""

    def __init__(self) -> None:
        self.n_steps = 0
        """steps of an optimiser in an epoch: 0 for trainings without"""
        self.stages: list[EpochRecord] = []
        self.passes: dict[str, int] = {}
        """how many batches the passes over the data have, by their label"""

    def on_start(self, run: TrainingRun, info: StartInfo) -> None:
        """Take it down."""
        self.n_steps = info["n_steps"]

    def on_progress(self, label: str, done: int, total: int, unit: str) -> None:
        """Take it down."""
        if unit == "batches":
            self.passes[label] = total

    def on_epoch(self, record: EpochRecord) -> None:
        """Take it down."""
        self.stages.append(record)


@dataclass
class Trained:
    """What a training left: its checkpoint, the weights it began and ended with, what it told."""

    folder: Path
    data: Datasets
    run: TrainingRun
    outcome: TrainingOutcome
    checkpoint: Path
    heard: Heard
    start: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]

    @property
    def predictor(self) -> Predictor:
        """The model that was trained."""
        return self.run.predictor

    @property
    def losses(self) -> list[float]:
        """The validation losses of the epochs or stages."""
        return [record.validation_loss for record in self.heard.stages]

    @property
    def word(self) -> str:
        """What the parts of the training are called."""
        return "epochs" if self.heard.n_steps else "stages"


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
    """Write data and an options file into ``folder``; returns the latter's path.

    Of the hypers in ``training`` those are left out that trainings of the subject do not have. NotApplicable where
    it is to be fine-tuned and cannot.
    """
    if "finetune" in training and not subject.finetunes:
        raise NotApplicable(
            "its trainings have no hyper 'finetune': they cannot start from another's weights"
        )
    training = {name: value for name, value in training.items() if subject.has_hyper(name)}
    frames = subject.in_turn(structures.labelled(subject.atomic_types, n, seed))
    for atoms in frames:
        for example in examples:
            example.write(atoms)
    data = folder / "data.xyz"
    ase.io.write(data, frames, format="extxyz")
    section = {
        "systems": {"read_from": str(data), "length_unit": "angstrom"},
        "targets": {example.name: dict(example.section) for example in examples},
        "extra_data": subject.extra_data(),
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
    observer: Observer | None = None,
    **given: Any,
) -> Trained:
    """Train from scratch, from ``restart``, or from what ``finetune`` names; see :func:`options`."""
    folder = subject.new_folder("training")
    planned = plan(options(subject, folder, examples, **given))
    heard = Heard()
    with quiet():
        place = Workplace(
            folder,
            torch.device("cpu"),
            choose_dtype(planned.options.base_precision, subject.architecture.info.dtypes),
        )
        prepared = prepare(planned, place, restart)
        model = prepared.run.predictor.model
        start = {k: v.detach().clone() for k, v in model.state_dict().items()}
        prepared.run.observers += [heard, *([] if observer is None else [observer])]
        outcome = prepared.train()
    require(
        isinstance(outcome, TrainingOutcome),
        f"train_model returns {type(outcome).__name__}, no TrainingOutcome",
    )
    path = folder / "model.ckpt"
    save_checkpoint(outcome.checkpoint, path)
    # a copy: the outcome's own are those of the living model
    weights = {k: v.clone() for k, v in outcome.checkpoint["model"]["last"].items()}
    return Trained(folder, prepared.data, prepared.run, outcome, path, heard, start, weights)


LENGTH: dict[str, Any] = {"num_epochs": 4, "checkpoint_interval": 1}
"""how long the training of most checks is, where trainings have epochs"""


def trained(subject: Subject) -> Trained:
    """A training on the main target with checkpoints, run once for all checks."""
    key = "_trained"
    if not hasattr(subject, key):
        setattr(subject, key, train(subject, [subject.main], **LENGTH))
    found: Trained = getattr(subject, key)
    return found


def validated(done: Trained) -> float:
    """The validation loss of the best weights of a training, once more."""
    run = done.run
    run.predictor.model.load_state_dict(done.outcome.best_weights)
    try:
        return Judge(run, Objective(run), Sources(run)).validate()[0]
    finally:
        run.predictor.model.load_state_dict(done.weights)


def loss_of_nothing(done: Trained) -> float:
    """The validation loss where compositions and scales are all there is, and the model says 0."""
    run = done.run
    loss, n = 0.0, 0
    sources, objective = Sources(run), Objective(run)
    for batch in sources.shares("validation", sources.in_order("validation")):
        assert batch is not None
        n += 1
        found = predict(run.predictor, batch, create_graph=False)
        zeros = {key: torch.zeros_like(values) for key, values in found.items()}
        loss += sum(objective.by_target(zeros, batch).values())
    return loss / max(n, 1)


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
