"""Who watches a training: loggers and callbacks that hear of every epoch and cannot disturb it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from atomtrain.training.run import TrainingOutcome, TrainingRun

log = logging.getLogger("atomtrain")

Errors = dict[str, dict[str, float]]
"""label key -> {"rmse", "mae", "count"} in physical units (see metrics.ErrorSums)"""


class StartInfo(TypedDict):
    """What :meth:`Observer.on_start` is told; all keys are always there."""

    n_parameters: int
    first_epoch: int
    """the epoch or stage to come"""
    num_epochs: int
    """epochs or stages in all; 0 where nobody knows"""
    n_steps: int
    """optimiser steps in an epoch; 0 where there are none"""
    skipped: tuple[int, int]
    """training structures too large for any batch, and those left out by bounds in epoch 0"""
    balance: str
    """how full and how even batches are, in words; empty where there is nothing to say"""
    kept: dict[str, str]
    """what is kept between epochs, in words, by ``train`` and ``validation``"""


@dataclass(frozen=True)
class EpochRecord:
    """What is known after an epoch, or after another stage of a training.

    ``stage`` says what it was where it is no epoch (``ridge 1e-06``). ``learning_rate`` is NaN where there is none,
    ``train_errors`` empty where they were not asked for. Without a validation set ``validation_errors``
    is empty, and its loss and the score are NaN. ``num_epochs`` is 0 where nobody knows. ``best_epoch``,
    ``best_stage`` and ``best_errors`` (on the validation set) are of the best so far, which may be of an earlier run.
    """

    epoch: int
    num_epochs: int
    train_loss: float
    validation_loss: float
    learning_rate: float = math.nan
    stage: str = ""
    train_errors: Errors = field(default_factory=dict)
    validation_errors: Errors = field(default_factory=dict)
    score: float = math.nan
    is_best: bool = False
    best_epoch: int = -1
    best_stage: str = ""
    best_errors: Errors = field(default_factory=dict)
    to_be_logged: bool = True
    seconds: float = 0.0
    structures_per_second: float = 0.0
    seconds_left: float = math.nan


class Observer:
    """Base of all observers; override what you want to hear of."""

    def on_start(self, run: TrainingRun, info: StartInfo) -> None:
        """Training begins."""

    def on_step(self, epoch: int, step: int, n_steps: int) -> None:
        """One optimiser step of ``n_steps`` in this epoch is done."""

    def on_progress(self, label: str, done: int, total: int, unit: str) -> None:
        """``done`` of ``total`` of something that is no epoch is done: ``design matrix``, 12, 40, ``batches``."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch or stage with its validation is done."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint was written."""

    def on_end(self, outcome: TrainingOutcome) -> None:
        """Training is over, by itself or by a signal."""

    def on_failure(self, error: BaseException) -> None:
        """Training ended with an error."""


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
