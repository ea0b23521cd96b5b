"""How long everybody trains."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atomtrain_compare.running import Ended, Logged, train

READABLE, LONGEST = 0.1, 60.0
"""the part of a budget over which an epoch is timed, and seconds that are enough"""
MANY = 1_000_000
"""epochs that no budget has room for"""


@dataclass(frozen=True)
class Budget:
    """Epochs, or minutes of training; neither: what the options say."""

    epochs: int | None = None
    minutes: float | None = None

    def __str__(self) -> str:
        if self.epochs is not None:
            return f"{self.epochs} epoch{'s' * (self.epochs != 1)} each"
        if self.minutes is not None:
            return f"{self.minutes:g} min of training each"
        return "as long as the options say"


def fitting(seconds: Sequence[float], budget: float) -> int:
    """How many epochs fit a ``budget``, in seconds, by what some took. The first counts apart: it prepares much."""
    first, *others = seconds
    each = sum(others) / len(others) if others else first
    return 1 + max(0, math.floor((budget - first) / max(each, 1e-6)))


def timed(
    folder: Path, budget: float, options: Callable[[Path, int], str]
) -> tuple[Ended, list[float]]:
    """Train in an empty folder until it is known what an epoch costs: how that ended, and the seconds of epochs.

    Schedules need to know the end of a training before it begins. ``options`` are those of so many epochs in
    a folder, as text. The folder goes away again unless the training failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "options.yaml").write_text(options(folder, MANY), encoding="utf-8")
    found: list[float] = []

    def enough(logged: Logged) -> bool:
        found[:] = logged.seconds
        spent = sum(found)
        readable = len(found) > 2 and spent - found[0] >= min(READABLE * budget, LONGEST)
        return readable or (len(found) > 1 and spent >= budget / 2) or spent >= budget

    ended = train(folder, enough)
    if not ended.error:
        shutil.rmtree(folder)
    return ended, found
