"""The table that a terminal shows while something is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from atomtrain.report.durations import duration
from atomtrain.training.observers import EpochRecord, Errors
from atomtrain.training.units import ShownError

BAR = 24
NARROW = 60
"""columns below which training errors are left out: names need the room"""
REFRESH = 1.0
"""times a second: times are shown in seconds, and each takes milliseconds of the training"""


def can_be_drawn_on(console: Console) -> bool:
    """Whether somebody looks at a terminal: no pipe (whatever FORCE_COLOR says), no notebook, no dumb terminal."""
    return console.is_interactive and console.file.isatty()


@dataclass
class Column:
    """Errors of one epoch or stage on one set."""

    stage: str = ""
    loss: float = math.nan
    errors: list[ShownError] = field(default_factory=list)

    def cell(self, name: str, metric: str) -> str:
        """The number of one row; empty where there is none."""
        numbers = (e.number for e in self.errors if (e.name, e.metric) == (name, metric))
        return next(numbers, "")


class TrainingTable:
    """Progress, time left, and errors by target: training, validation, the best so far.

    ``shown`` says which errors are shown, and how. :meth:`open` draws the table at the end of a terminal, with all
    that is printed above it, until :meth:`close`, which leaves it there.
    """

    def __init__(self, shown: Callable[[Errors], list[ShownError]]) -> None:
        self.shown = shown
        self.doing, self.done, self.total = "", 0, 0
        self.checkpoint = ""
        self.columns: dict[str, Column] = {}
        self.notes: list[str] = []
        self._by = "epoch"
        self._began = time.monotonic()
        self._ends = math.nan
        self._live: Live | None = None

    def open(self, console: Console) -> None:
        """Begin to draw."""
        self._began = time.monotonic()
        self._live = Live(self, console=console, refresh_per_second=REFRESH)
        self._live.start(refresh=True)
        # a process that is killed hides no cursor then
        console.show_cursor(True)

    def close(self) -> None:
        """Draw it for the last time, whole. To be called again without harm."""
        if self._live is not None:
            self._ends = math.nan
            self._live.stop()

    @property
    def seconds(self) -> float:
        """How long it is drawn already."""
        return time.monotonic() - self._began

    def progress(self, doing: str, done: int, total: int) -> None:
        """Say what is done, and how much of it."""
        self.doing, self.done, self.total = doing, done, total

    def expect(self, seconds_left: float) -> None:
        """Say how long it will take from now on; NaN where nobody knows."""
        self._ends = time.monotonic() + seconds_left

    def add(self, record: EpochRecord) -> None:
        """Show the errors of an epoch or stage."""
        self._by = "stage" if record.stage else "epoch"
        self.expect(record.seconds_left)
        stage = record.stage or str(record.epoch)
        # training errors are not of every epoch, or of none: the column says of which
        if record.train_errors or not self.columns.setdefault("training", Column()).errors:
            errors = self.shown(record.train_errors)
            self.columns["training"] = Column(stage, record.train_loss, errors)
        if record.validation_errors:
            self.columns["validation"] = Column(
                stage, record.validation_loss, self.shown(record.validation_errors)
            )
            best = record.best_stage or str(record.best_epoch)
            self.columns["best"] = Column(best, errors=self.shown(record.best_errors))
        self.notes = []
        if record.structures_per_second:
            self.notes.append(f"{record.structures_per_second:.0f} structures/s")
        if not math.isnan(record.learning_rate):
            self.notes.append(f"learning rate {record.learning_rate:.2e}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.doing:
            grid = Table.grid(padding=(0, 1))
            done = f"{100 * self.done / self.total:.0f} %" if self.total else ""
            # as wide as there is room
            bar = ProgressBar(total=self.total, completed=self.done) if self.total else Text("")
            grid.add_column(overflow="fold")
            grid.add_column(max_width=BAR)
            grid.add_column(no_wrap=True)
            grid.add_row(Text(self.doing), bar, Text(done))
            yield grid
        yield Text(", ".join(self._times()))
        if self.checkpoint:
            yield Text(f"checkpoint {self.checkpoint}", overflow="fold")
        if self.columns:
            yield self._table(options.max_width)

    def _times(self) -> Iterator[str]:
        yield f"{duration(round(self.seconds))} passed"
        if not math.isnan(self._ends):
            yield f"{duration(round(max(self._ends - time.monotonic(), 0.0)))} left"
        yield from self.notes

    def _table(self, width: int) -> Table:
        columns = dict(self.columns)
        if width < NARROW and "validation" in columns:
            del columns["training"]
        grid = Table(box=None, pad_edge=False, header_style="bold")
        grid.add_column("", overflow="fold")
        for title in columns:
            style = "green" if title == "best" else None
            grid.add_column(title, justify="right", style=style, no_wrap=True, overflow="ellipsis")
        found = columns.values()
        grid.add_row(self._by, *(Text(column.stage) for column in found))
        if not all(math.isnan(column.loss) for column in found):
            losses = ("" if math.isnan(c.loss) else f"{c.loss:.4g}" for c in found)
            grid.add_row("loss", *losses)
        rows = {(e.name, e.metric): e.unit for column in found for e in column.errors}
        for (name, metric), unit in rows.items():
            label = f"{name} {metric} [{unit}]" if unit else f"{name} {metric}"
            grid.add_row(Text(label), *(column.cell(name, metric) for column in found))
        return grid
