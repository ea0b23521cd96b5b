"""What a training needs and what it leaves behind: the two objects ``train_model`` is about."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from atomtrain.data.kept import Kept
from atomtrain.data.streamed import Structures
from atomtrain.model.predictor import Predictor
from atomtrain.targets import DatasetInfo
from atomtrain.training.distributed import Processes, how_to_go_on
from atomtrain.training.finetune import Began, Replayed
from atomtrain.training.outcome import TrainingOutcome as TrainingOutcome
from atomtrain.training.session import Session

if TYPE_CHECKING:
    from atomtrain.options import BaseTrainerHypers
    from atomtrain.training.observers import Observer
    from atomtrain.training.trial import Trial


@dataclass
class TrainingRun:
    """Everything a trainer is given.

    ``predictor`` wraps the model with its fitted compositions and scales, both on ``device`` and in ``dtype``, with
    fresh weights, the last ones of ``checkpoint``, or those of the fine-tuned one; stores hold labels in
    physical units, and that for ``validation`` may be empty. ``hypers`` are of the class that the architecture
    names. ``checkpoint`` is the upgraded checkpoint to go on from, or None; ``changed_hypers`` are those of its
    trainer that are others today (by name: then, now), ``data_changed`` whether structures or labels of training are.
    ``header`` is what every checkpoint of this run carries besides the training
    state (architecture, hypers, dataset info, splits, ...). Only the process with ``processes.is_main``
    writes files into ``directory``.
    """

    predictor: Predictor
    dataset_info: DatasetInfo
    hypers: BaseTrainerHypers
    train: Structures
    validation: Structures
    device: torch.device
    dtype: torch.dtype
    seed: int
    directory: Path
    header: dict[str, Any]
    processes: Processes = field(default_factory=Processes)
    checkpoint: dict[str, Any] | None = None
    changed_hypers: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    data_changed: bool = False
    observers: list[Observer] = field(default_factory=list)
    began: Began = field(default_factory=Began)
    """what a fine-tuning began with"""
    replayed: Replayed | None = None
    """which structures a fine-tuning sees again"""

    kept: Kept | None = None
    """what is kept of whole structures; None: the session makes one"""
    rehearse: Callable[[dict[str, Any]], object] | None = None
    """tries the export of a checkpoint; raises where it fails"""

    trial: Trial | None = None
    """says that the training is only to be tried, and what that took"""

    last_checkpoint: Path | None = None
    """the last that was written, or gone on from"""

    def remember(self, checkpoint: Path) -> None:
        """Say of this checkpoint, where the training ends with an error, that it can be gone on from."""
        self.last_checkpoint = checkpoint
        self.processes.remember(checkpoint)

    @property
    def remedy(self) -> str:
        """A sentence on how to go on after an error."""
        last = self.last_checkpoint
        return "There is no checkpoint to go on from" if last is None else how_to_go_on(last)

    def session(self, state: MutableMapping[str, Any] | None = None) -> Session:
        """A training of these data, to be entered with ``with``; ``state`` is what checkpoints are to have of it."""
        return Session(self, state)
