"""Errors as people of the field write them: meV per atom, meV/A, meV/A^3."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atomtrain.targets import GRADIENT_NAMES, DatasetInfo
from atomtrain.tasks import task_of

if TYPE_CHECKING:
    from atomtrain.training.observers import EpochRecord

ERRORS = ("rmse", "mae")
"""metrics that have the unit of the target"""
LENGTHS = {"angstrom": "A", "a": "A", "bohr": "bohr", "nm": "nm", "nanometer": "nm"}


@dataclass(frozen=True)
class Quantity:
    """How the errors of one label are shown: its name, a factor, the unit after it."""

    key: str
    name: str
    factor: float
    unit: str

    def show(self, metric: str, found: Mapping[str, float]) -> ShownError:
        """One of the metrics found: four significant digits, and the unit if it is an error."""
        factor, unit = (self.factor, self.unit) if metric in ERRORS else (1.0, "")
        return ShownError(self.name, title(metric), f"{found[metric] * factor:.4g}", unit)


@dataclass(frozen=True)
class ShownError:
    """An error as people are shown it: ``forces``, ``RMSE``, ``12.3``, ``meV/A``."""

    name: str
    metric: str
    number: str
    unit: str

    def __str__(self) -> str:
        return f"{self.name} {self.metric} {self.number} {self.unit}".strip()


def titles(info: DatasetInfo) -> dict[str, str]:
    """What people are shown for every label key and every block: short, and no two alike.

    ``energy``, ``forces``, ``dipole`` (``mtt::dipole``). Where two would be alike both are called by their
    full names, or else by their keys.
    """
    short = {name: name.removeprefix("mtt::") for name in info.targets}
    times = Counter([*short.values(), *(name for name in short if short[name] != name)])
    short = {name: title if times[title] == 1 else name for name, title in short.items()}
    spelt: dict[str, list[str]] = {}  # from short to long
    for name, target in info.targets.items():
        spelt[name] = [short[name], name]
        for block in target.blocks if len(target.blocks) > 1 else ():
            key, title = (f"{text} ({block.title})" for text in (name, short[name]))
            spelt[key] = [title, key]
        for gradient in target.gradients:
            kind, key = GRADIENT_NAMES[gradient], f"{name}:{gradient}"
            first = kind if name == "energy" else f"{short[name]} {kind}"
            spelt[key] = [first, f"{name} {kind}", key]
    found = {key: ways.pop(0) for key, ways in spelt.items()}
    while True:
        times = Counter(found.values())
        longer = [key for key, title in found.items() if times[title] > 1 and spelt[key]]
        if not longer:
            return found
        found |= {key: spelt[key].pop(0) for key in longer}


def quantities(info: DatasetInfo, totals: Collection[str] = ()) -> list[Quantity]:
    """How to show the error of every label key and every block, in order.

    Per-structure targets count per atom, but for those in ``totals``.
    """
    length = LENGTHS.get(info.length_unit.lower(), info.length_unit)
    shown, called = [], titles(info)
    for name, target in info.targets.items():
        own = task_of(target.kind).error_unit(target, length)
        head, slash, rest = own.partition("/")
        milli = head.lower() == "ev"
        unit, factor = (f"meV{slash}{rest}", 1e3) if milli else (own, 1.0)
        per, suffix = unit, ""
        if target.error_per(totals=totals) == "atom":
            per, suffix = (f"{unit}/atom", "") if unit else ("", " (per atom)")
        blocks = target.blocks if len(target.blocks) > 1 else ()
        for key in (name, *(f"{name} ({block.title})" for block in blocks)):
            shown.append(Quantity(key, called[key] + suffix, factor, per))
        for gradient in target.gradients:
            key, power = f"{name}:{gradient}", "" if gradient == "forces" else "^3"
            per = f"{unit}/{length}{power}" if unit else ""
            shown.append(Quantity(key, called[key], factor, per))
    return shown


def numbers(record: EpochRecord, shown: Collection[Quantity]) -> dict[str, float]:
    """The errors of an epoch as a flat row: ``validation forces RMSE [meV/A]`` -> value.

    A number is NaN where it was not computed (training errors, usually). Without a validation set there are
    training errors alone.
    """
    row: dict[str, float] = {}
    for part, errors in (
        ("training", record.train_errors),
        ("validation", record.validation_errors),
    ):
        # training errors are not of every epoch, the columns are
        known = record.validation_errors or errors
        for q in shown:
            for metric in known.get(q.key, {}):
                if metric != "count":
                    is_error = metric in ERRORS
                    unit = f" [{q.unit}]" if q.unit and is_error else ""
                    value = errors.get(q.key, {}).get(metric, math.nan)
                    name = f"{part} {q.name} {title(metric)}{unit}"
                    row[name] = value * q.factor if is_error else value
    return row


def shown_errors(
    info: DatasetInfo,
    errors: Mapping[str, Mapping[str, float]],
    kinds: tuple[str, ...] = ("rmse",),
    totals: Collection[str] = (),
) -> list[ShownError]:
    """What was counted, in the order in which it is shown.

    ``kinds`` of errors are for numbers; other targets show what their tasks say.
    """
    whole = [q for q in quantities(info, totals) if errors.get(q.key, {}).get("count", 0) > 0]
    own = [q for q in whole if q.key in info.targets and _own(info, q.key)]
    found = [q.show(kind, errors[q.key]) for kind in kinds for q in whole if q not in own]
    for q in own:
        shown = task_of(info.targets[q.key].kind).shown
        found += [q.show(metric, errors[q.key]) for metric in shown if metric in errors[q.key]]
    return found


def errors_line(
    info: DatasetInfo,
    errors: Mapping[str, Mapping[str, float]],
    kinds: tuple[str, ...] = ("rmse",),
    totals: Collection[str] = (),
) -> str:
    """``energy RMSE 0.71 meV/atom, forces RMSE 36.9 meV/A``: :func:`shown_errors` on one line."""
    return ", ".join(map(str, shown_errors(info, errors, kinds, totals)))


def title(metric: str) -> str:
    """A metric as people write it."""
    return {"rmse": "RMSE", "mae": "MAE", "r2": "R2", "relative rmse": "relative RMSE"}.get(
        metric, metric
    )


def _own(info: DatasetInfo, key: str) -> bool:
    """Whether the task of a target has metrics of its own."""
    target = info.targets[key]
    return task_of(target.kind).metric_size(target) > 0
