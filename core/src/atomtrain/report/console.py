"""What a person sees of a training: the log, a table on a terminal, ``train.csv``."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from atomtrain.files import Appending
from atomtrain.report.durations import duration
from atomtrain.report.live import TrainingTable, can_be_drawn_on
from atomtrain.training.observers import EpochRecord, Errors, Observer, StartInfo
from atomtrain.training.units import ShownError, numbers, quantities, shown_errors

if TYPE_CHECKING:
    from atomtrain.options import BaseTrainerHypers
    from atomtrain.targets import DatasetInfo
    from atomtrain.training.run import TrainingOutcome, TrainingRun

log = logging.getLogger("atomtrain")
EVERY = 20.0
"""seconds between lines of something that takes long"""
IN_TABLE = "in_table"
"""what marks a line of the log that the table on the terminal shows as well"""
FORMAT = logging.Formatter("[%(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S")


@contextmanager
def logging_to(file: Path | None, console: Console, quiet: bool = False) -> Iterator[None]:
    """Log to the console and to ``file`` while the block runs. ``quiet``: warnings only."""
    handlers: list[logging.Handler] = [_ConsoleHandler(console)]
    handlers[0].setLevel(logging.WARNING if quiet else logging.INFO)
    if file is not None:
        handlers.append(_FileHandler(file))
    level = log.level
    log.setLevel(logging.DEBUG)  # tracebacks of plugins are for the file
    for handler in handlers:
        handler.setFormatter(FORMAT)
        log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(level)
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


class _ConsoleHandler(logging.Handler):
    """Lines: above the table where there is one, and without those that it shows."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, IN_TABLE, False):
            return
        style = "yellow" if record.levelno >= logging.WARNING else None
        self.console.print(
            self.format(record),
            style=style,
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=True,
        )


class _FileHandler(logging.Handler):
    """Lines of a file; those that a full disk refuses follow when there is room."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = _Appending(path)

    def emit(self, record: logging.LogRecord) -> None:
        self.file.add(f"{self.format(record)}\n")


class _Appending(Appending):
    """Says once when lines begin to wait, and once when they no longer do."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.problem = ""

    def add(self, text: str) -> str:
        before, self.problem = self.problem, super().add(text)
        # a folder that is gone ends the training, which then says so
        if self.problem and not before and self.path.parent.is_dir():
            log.warning(
                f"cannot write '{self.path}': {self.problem}; the training goes on, and what is to be written there "
                "follows when it can be"
            )
        elif before and not self.problem:
            log.info(f"'{self.path}' is written again, with all that was missing")
        return self.problem


class ConsoleObserver(Observer):
    """A line of the log every few epochs, and of what else takes long; on a terminal a table in their place.

    To be closed when the training is over, however it ended.
    """

    def __init__(self, info: DatasetInfo, console: Console, hypers: BaseTrainerHypers) -> None:
        self.info = info
        self.kinds = ("rmse", "mae") if hypers.log_mae else ("rmse",)
        self.totals = hypers.per_structure_targets
        self.console = console
        self.table: TrainingTable | None = None
        self.label, self.label_began, self.last_line = "", 0.0, 0.0

    def on_start(self, run: TrainingRun, info: StartInfo) -> None:
        n, dtype = len(run.train), str(run.dtype).removeprefix("torch.")
        total = sum(p.numel() for p in run.predictor.model.parameters())
        of = f" (the model has {total:,})" if total != info["n_parameters"] else ""
        log.info(
            f"training {info['n_parameters']:,} parameters{of} on {n} structures "
            f"({int(run.train.n_atoms.sum())} atoms), validating on {len(run.validation) or 'nothing'}; device "
            f"{run.device}, {dtype}"
        )
        log.info("; ".join(f"{part}: {kept}" for part, kept in info["kept"].items()))
        if info["balance"]:
            log.info(info["balance"])
        too_large, out_of_bounds = info["skipped"]
        if too_large:
            log.warning(
                f"{too_large} of {n} training structures have more atoms than max_atoms_per_batch "
                "and are skipped"
            )
        if out_of_bounds:
            log.warning(
                f"{out_of_bounds} of {n} training structures are skipped in the first epoch because "
                "their batch has too few or too many atoms (batch_atom_bounds, "
                "min_atoms_per_batch); the number differs between epochs"
            )
        first, total = info["first_epoch"], info["num_epochs"]
        if first:
            log.info(
                f"going on after epoch {first} of {total}" if total else f"{first} stages are done"
            )
        self.close()
        if can_be_drawn_on(self.console):
            self.table = TrainingTable(self._shown)
            self.start = info
            if info["n_steps"]:
                self._show_epoch(first, 0)
            self.table.open(self.console)

    def close(self) -> None:
        """Leave the table as it is."""
        if self.table is not None:
            self.table.close()
            self.table = None

    def _say(self, line: str) -> None:
        log.info(line, extra={IN_TABLE: self.table is not None})

    def on_step(self, epoch: int, step: int, n_steps: int) -> None:
        self._show_epoch(epoch, step)

    def _show_epoch(self, epoch: int, step: int) -> None:
        if self.table is None:
            return
        first, total, n = (self.start[key] for key in ("first_epoch", "num_epochs", "n_steps"))
        done = epoch * n + step
        self.table.progress(f"Epoch {epoch}/{total}", done, total * n)
        if not self.table.columns and step:  # later an epoch says it, with its validation
            self.table.expect(self.table.seconds * (total * n - done) / (done - first * n))

    def on_progress(self, label: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if label != self.label:
            self.label, self.label_began, self.last_line = label, now, now
        if self.table is not None:
            self.table.progress(f"{label}, {done}/{total} {unit}", done, total)
        if done >= total:
            log.info(f"{label}: {total} {unit} in {now - self.label_began:.1f} s")
            self.label = ""
        elif now - self.last_line > EVERY:
            self.last_line = now
            self._say(f"{label}: {done}/{total} {unit}")

    def on_epoch(self, record: EpochRecord) -> None:
        if self.table is not None:
            self.table.add(record)
            if not self.start["n_steps"]:
                name = "Stage" if record.stage else "Epoch"
                of = f"/{record.num_epochs}" if record.num_epochs else ""
                done = record.epoch + 1
                self.table.progress(f"{name} {done}{of}", done, record.num_epochs)
        if not record.to_be_logged:
            return
        parts = [record.stage or f"Epoch {record.epoch:>4}/{record.num_epochs}"]
        if not math.isnan(record.learning_rate):
            parts.append(f"learning rate {record.learning_rate:.2e}")
        if not math.isnan(record.train_loss):
            parts.append(f"training loss {record.train_loss:.4g}")
        if record.train_errors:
            parts.append(f"training {self._errors(record.train_errors)}")
        if record.validation_errors:
            parts += [
                f"validation loss {record.validation_loss:.4g}",
                f"validation {self._errors(record.validation_errors)}",
            ]
        if not record.stage:
            parts += [_rate(record), f"{duration(record.seconds_left)} left"]
        elif record.is_best:
            parts.append("the best so far")
        self._say(" | ".join(parts))

    def _shown(self, errors: Errors) -> list[ShownError]:
        return shown_errors(self.info, errors, self.kinds, self.totals)

    def _errors(self, errors: Errors) -> str:
        return ", ".join(map(str, self._shown(errors)))

    def on_checkpoint(self, path: Path) -> None:
        if self.table is not None:
            self.table.checkpoint = str(path)
        self._say(f"checkpoint written: {path}")

    def on_end(self, outcome: TrainingOutcome) -> None:
        self.close()

    def on_failure(self, error: BaseException) -> None:
        self.close()


class CsvObserver(Observer):
    """``train.csv``: a row per epoch, units in the header; flushed, so that it can be watched.

    Where stages are no epochs a row says what each was, and what was gone through before the first is a row of its
    own, written with it.
    """

    def __init__(self, path: Path, info: DatasetInfo, hypers: BaseTrainerHypers) -> None:
        self.file = _Appending(path)
        self.quantities = quantities(info, hypers.per_structure_targets)
        self.columns: list[str] = []
        self.passes: list[dict[str, Any]] = []
        self.label, self.began = "", 0.0

    def on_progress(self, label: str, done: int, total: int, unit: str) -> None:
        if label != self.label:
            self.label, self.began = label, time.monotonic()
        if done >= total:
            seconds = round(time.monotonic() - self.began, 4)
            row = {"stage": f"{label}, {total} {unit}", "seconds": seconds, "time": _now()}
            self.label = ""
            if self.columns:
                self._write(row)
            else:
                self.passes.append(row)

    def on_end(self, outcome: TrainingOutcome) -> None:
        if not self.columns and self.passes:
            self.columns = list(self.passes[0])
            self._write()

    def on_epoch(self, record: EpochRecord) -> None:
        loss = record.train_loss
        known = {} if math.isnan(loss) else {"training loss": loss}
        named = {"stage": record.stage} if record.stage else {}
        rate = {} if math.isnan(record.learning_rate) else {"learning rate": record.learning_rate}
        row: dict[str, Any] = {
            "epoch": record.epoch,
            **named,
            **rate,
            **known,
            **({"validation loss": record.validation_loss} if record.validation_errors else {}),
            "seconds": round(record.seconds, 4),
            "time": _now(),
        }
        for name, value in numbers(record, self.quantities).items():
            row[name] = "" if math.isnan(value) else value
        # which columns there are must not depend on which metrics a later epoch has
        self.columns = self.columns or list(row)
        self._write(row)

    def _write(self, *rows: dict[str, Any]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore")
        if self.file.begins:
            writer.writeheader()
        writer.writerows([*self.passes, *rows])
        self.file.add(text.getvalue())
        self.passes = []


def _now() -> float:
    return round(time.time(), 3)


def _rate(record: EpochRecord) -> str:
    return f"{record.structures_per_second:.0f} structures/s"
