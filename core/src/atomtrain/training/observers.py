"""Who watches a training: loggers and callbacks that hear of every epoch and cannot disturb it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomtrain.training.run import TrainingOutcome, TrainingRun

log = logging.getLogger("atomtrain")

Errors = dict[str, dict[str, float]]
"""label key -> {"rmse", "mae", "count"} in physical units (see metrics.ErrorSums)"""


@dataclass(frozen=True)
class EpochRecord:
    """What is known after an epoch. ``train_errors`` is empty where they were not asked for.

    Without a validation set ``validation_errors`` is empty, and its loss and the score are NaN.
    """

    epoch: int
    num_epochs: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    train_errors: Errors = field(default_factory=dict)
    validation_errors: Errors = field(default_factory=dict)
    score: float = math.nan
    is_best: bool = False
    to_be_logged: bool = True
    seconds: float = 0.0
    structures_per_second: float = 0.0
    seconds_left: float = math.nan


class Observer:
    """Base of all observers; override what you want to hear of."""

    def on_start(self, run: TrainingRun, info: dict[str, Any]) -> None:
        """Training begins. ``info``: ``n_parameters``, ``first_epoch``, ``num_epochs``, ..."""

    def on_step(self, epoch: int, step: int, n_steps: int) -> None:
        """One optimiser step of ``n_steps`` in this epoch is done."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch with its validation is done."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint was written."""

    def on_end(self, outcome: TrainingOutcome) -> None:
        """Training is over, whatever the reason."""


class Observers:
    """Tells all observers; one that fails is dropped, once, loudly."""

    def __init__(self, observers: list[Observer]) -> None:
        self._observers = list(observers)

    def tell(self, event: Callable[[Observer], None]) -> None:
        """Call ``event`` with each observer."""
        for observer in list(self._observers):
            try:
                event(observer)
            except Exception as error:
                self._observers.remove(observer)
                who, what = type(observer).__name__, type(error).__name__
                log.warning(f"{who} failed and hears no more of this training: {what}: {error}")
