"""What ``train.csv`` tells of the way to a model: columns of epochs or stages, seconds."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from atomtrain.tasks import task_of
from atomtrain.training.units import ERRORS
from atomtrain.training.units import title as metric_title
from atomtrain_report.sets import Shown

SETS = ("training", "validation")


@dataclass(frozen=True)
class Curve:
    """One quantity along a training: values by set, NaN where there is none, ``unit`` for its axis."""

    title: str
    unit: str
    values: dict[str, np.ndarray]
    is_error: bool


@dataclass(frozen=True)
class History:
    """The rows of ``train.csv`` that are epochs or ``stages`` (named then), and what was gone through besides.

    ``seconds`` are of all epochs or stages, ``passes`` names and seconds of what is none.
    """

    epochs: np.ndarray
    stages: list[str] = field(default_factory=list)
    seconds: float = 0.0
    passes: list[tuple[str, float]] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)


def history(path: Path, shown: Sequence[Shown]) -> History | None:
    """What the file tells; None where there is none, or not a row of it."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error):
        return None
    passes = [
        (row.get("stage") or "", _number(row.get("seconds")))
        for row in rows
        if not row.get("epoch")
    ]
    rows = [row for row in rows if row.get("epoch")]
    if not rows:
        return History(np.array([]), passes=passes) if passes else None

    def column(name: str) -> np.ndarray:
        return np.array([_number(row.get(name)) for row in rows])

    curves = [_curve("loss", "", {s: column(f"{s} loss") for s in SETS}, True)]
    for one in shown:
        quantity, task = one.quantity, task_of(one.target.kind)
        own = one.key in (one.target.name,) and task.metric_size(one.target) > 0
        for metric in task.shown[:1] if own else ("rmse",):
            error = metric in ERRORS
            unit = quantity.unit if error else ""
            suffix = f" [{unit}]" if unit else ""
            name = f"{quantity.name} {metric_title(metric)}"
            values = {s: column(f"{s} {name}{suffix}") for s in SETS}
            curves.append(_curve(name, unit, values, error))
    return History(
        epochs=column("epoch"),
        stages=[row["stage"] for row in rows] if "stage" in rows[0] else [],
        seconds=float(np.nansum(column("seconds"))),
        passes=passes,
        curves=[curve for curve in curves if curve.values],
    )


def _curve(title: str, unit: str, values: dict[str, np.ndarray], is_error: bool) -> Curve:
    there = {name: found for name, found in values.items() if np.isfinite(found).any()}
    return Curve(title, unit, there, is_error)


def _number(text: str | None) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")
