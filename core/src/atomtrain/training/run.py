"""What a training needs and what it leaves behind: the two objects ``train_model`` is about."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atomtrain.data.kept import Kept
from atomtrain.data.store import StructureStore
from atomtrain.model.predictor import Predictor
from atomtrain.targets import DatasetInfo
from atomtrain.training.distributed import Processes

if TYPE_CHECKING:
    from atomtrain.options import TrainerHypers
    from atomtrain.training.observers import Observer


@dataclass
class TrainingRun:
    """Everything a trainer is given.

    ``predictor`` wraps the model with its fitted compositions and scales; stores hold labels in
    physical units, and that for ``validation`` may be empty. ``checkpoint`` is the upgraded checkpoint to
    go on from, or None. ``header`` is what every checkpoint of this run carries besides the training
    state (architecture, hypers, dataset info, splits, ...). Only the process with ``processes.is_main``
    writes files.
    """

    predictor: Predictor
    dataset_info: DatasetInfo
    hypers: TrainerHypers
    train: StructureStore
    validation: StructureStore
    device: torch.device
    dtype: torch.dtype
    seed: int
    directory: Path
    header: dict[str, Any]
    processes: Processes = field(default_factory=Processes)
    checkpoint: dict[str, Any] | None = None
    observers: list[Observer] = field(default_factory=list)
    kept: Kept | None = None
    """what is kept of whole structures; None: the engine makes one"""


@dataclass
class TrainingOutcome:
    """What a training ends with.

    ``checkpoint`` is the complete final checkpoint (last and best weights), ``best_weights`` the
    model's state that is to be exported, ``interrupted`` whether a signal ended it early.
    """

    checkpoint: dict[str, Any]
    best_weights: dict[str, Tensor]
    interrupted: bool = False
    stopped_early: bool = False
