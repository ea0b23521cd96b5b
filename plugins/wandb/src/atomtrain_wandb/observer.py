"""The logger itself."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import wandb

from atomtrain.errors import did_you_mean
from atomtrain.training.observers import EpochRecord, Observer, StartInfo
from atomtrain.training.units import numbers, quantities

if TYPE_CHECKING:
    from atomtrain.training.run import TrainingOutcome, TrainingRun


class WandbObserver(Observer):
    """Sends every epoch to a run of Weights & Biases.

    ``arguments`` are those of ``wandb.init``; ``dir`` is the run's directory unless given, and
    ``config`` is added to the completed options. Raises ValueError for arguments it does not have.
    """

    def __init__(self, **arguments: Any) -> None:
        known = list(inspect.signature(wandb.init).parameters)
        for name in arguments:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"wandb.init has no argument '{name}'{hint}")
        self._arguments = arguments
        self._run: Any = None

    def on_start(self, run: TrainingRun, info: StartInfo) -> None:
        self._quantities = quantities(run.dataset_info, run.hypers.per_structure_targets)
        config = self._arguments.get("config")
        if config is None or isinstance(config, dict):
            facts = {"n_parameters": info["n_parameters"], "n_structures": len(run.train)}
            config = {**run.header["options"], **facts, **(config or {})}
        self._run = wandb.init(**{"dir": str(run.directory), **self._arguments, "config": config})

    def on_epoch(self, record: EpochRecord) -> None:
        row = {
            "learning rate": record.learning_rate,
            "training loss": record.train_loss,
            "validation loss": record.validation_loss,
            "structures per second": record.structures_per_second,
            **numbers(record, self._quantities),
        }
        row = {name: value for name, value in row.items() if not math.isnan(value)}
        self._run.log(row, step=record.epoch)
        if record.is_best:
            best = {f"best {name}": value for name, value in row.items() if "validation" in name}
            self._run.summary.update({"best epoch": record.epoch, **best})

    def on_end(self, outcome: TrainingOutcome) -> None:
        self._run.finish(exit_code=1 if outcome.interrupted else 0)
