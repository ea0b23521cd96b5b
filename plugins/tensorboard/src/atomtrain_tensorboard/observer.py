"""The logger itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import yaml
from torch.utils.tensorboard import SummaryWriter

from atomtrain.training.observers import EpochRecord, Observer, StartInfo
from atomtrain.training.units import numbers, quantities

if TYPE_CHECKING:
    from atomtrain.training.run import TrainingOutcome, TrainingRun


class TensorboardObserver(Observer):
    """Writes every epoch to an event file.

    ``log_dir`` is the folder of the event file (None: ``tensorboard`` in the run's directory),
    ``flush_seconds`` how long numbers may wait before they are written.
    """

    def __init__(self, log_dir: str | None = None, flush_seconds: float = 30.0) -> None:
        if flush_seconds <= 0:
            raise ValueError(f"flush_seconds must be greater than 0, got {flush_seconds}")
        self._log_dir = log_dir
        self._flush_seconds = flush_seconds

    def on_start(self, run: TrainingRun, info: StartInfo) -> None:
        self._quantities = quantities(run.dataset_info, run.hypers.per_structure_targets)
        self._writer = SummaryWriter(
            self._log_dir or str(run.directory / "tensorboard"), flush_secs=self._flush_seconds
        )
        options = yaml.safe_dump(run.header["options"], sort_keys=False)
        # indented, Markdown shows it as it is
        self._writer.add_text("options", "    " + options.replace("\n", "\n    "))

    def on_epoch(self, record: EpochRecord) -> None:
        row = {
            "learning rate": record.learning_rate,
            "training loss": record.train_loss,
            "validation loss": record.validation_loss,
            "structures per second": record.structures_per_second,
            **numbers(record, self._quantities),
        }
        for name, value in row.items():
            if not math.isnan(value):
                # "training/loss", "training/energy RMSE [meV/atom]": one group for each set
                group, _, rest = name.partition(" ")
                tag = f"{group}/{rest}" if group in ("training", "validation") else name
                self._writer.add_scalar(tag, value, record.epoch)

    def on_end(self, outcome: TrainingOutcome) -> None:
        self._writer.close()
