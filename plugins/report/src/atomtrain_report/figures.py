"""Pictures of a page, by matplotlib: each one panel, so that a page can set them side by side or below one another."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from atomtrain_report.curves import Curve, History
    from atomtrain_report.sets import Part, Shown

SIZE = (4.4, 3.5)
DPI = 130
POINTS = 3000
"""beyond so many points their density is shown"""
MOST_POINTS = 300_000
"""points of which a density is made"""
BINS = (14, 60)
"""fewest and most of a histogram; of few values many bins show noise"""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""that people tell apart whatever their sight (Okabe and Ito)"""
STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Picture:
    """A PNG, the name of its file, and what it shows in words."""

    name: str
    png: bytes
    alt: str


@contextmanager
def panel() -> Iterator[tuple[Figure, Axes]]:
    """A figure with one panel, in our style.

    Margins are fixed: matplotlib's layouts, which measure all texts, double the time that pictures take.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, dpi=DPI)
        figure.subplots_adjust(left=0.2, right=0.97, top=0.91, bottom=0.15)
        yield figure, figure.subplots()


def colour_of(name: str, names: Sequence[str]) -> str:
    """Of a set: always the same in all pictures."""
    usual = ("training", "validation", "test")
    k = usual.index(name) if name in usual else list(names).index(name)
    return COLOURS[k % len(COLOURS)]


def parity(part: Part, shown: Shown, names: Sequence[str]) -> Picture:
    """Predictions against labels of one set."""
    labels, predictions = part.values(shown)
    n = len(labels)
    if n > MOST_POINTS:
        some = np.linspace(0, n - 1, MOST_POINTS).astype(np.int64)
        labels, predictions = labels[some], predictions[some]
    low = float(min(labels.min(), predictions.min()))
    high = float(max(labels.max(), predictions.max()))
    room = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    limits = (low - room, high + room)
    unit = f" [{shown.value_unit}]" if shown.value_unit else ""
    colour = colour_of(part.name, names)
    with panel() as (figure, axes):
        axes.plot(limits, limits, color="0.55", linewidth=0.8, zorder=0)
        if len(labels) > POINTS:
            density = axes.hexbin(
                labels, predictions, gridsize=70, bins="log", mincnt=1, linewidths=0.1,
                extent=(*limits, *limits), cmap="viridis_r",
            )  # fmt: skip
            figure.subplots_adjust(right=0.95)
            figure.colorbar(density, label="values", pad=0.02, aspect=30)
        else:
            axes.plot(labels, predictions, ".", color=colour, markersize=3.5, alpha=0.6)
        axes.set(xlim=limits, ylim=limits, title=f"{shown.title}, {part.name} set")
        axes.set(xlabel=f"label{unit}", ylabel=f"prediction{unit}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4))
        axes.ticklabel_format(useOffset=False)
        said = said_of(part, shown)
        axes.text(0.03, 0.97, said.replace(", ", "\n"), transform=axes.transAxes, va="top", size=9)
        alt = f"Predictions against labels of {shown.title}, {part.name} set: {said}, {n} values"
        return _png(figure, f"parity_{shown.title}_{part.name}", alt)


def said_of(part: Part, shown: Shown) -> str:
    """``RMSE 36.9 meV/A, MAE 25.1 meV/A`` of the structures looked at."""
    errors = part.errors_of(shown)
    errors = errors[np.isfinite(errors)]
    unit = f" {shown.quantity.unit}" if shown.quantity.unit else ""
    rmse, mae = np.sqrt((errors**2).mean()), abs(errors).mean()
    return f"RMSE {rmse:.4g}{unit}, MAE {mae:.4g}{unit}"


def histogram(parts: Sequence[Part], shown: Shown, names: Sequence[str]) -> Picture:
    """How errors of each set are distributed; what is far out is in the last bins."""
    found = {}
    for part in parts:
        errors = part.errors_of(shown)
        found[part.name] = errors[np.isfinite(errors)]
    widest = max(float(np.quantile(abs(errors), 0.995)) for errors in found.values()) or 1.0
    fewest = min(len(errors) for errors in found.values())
    edges = np.linspace(-widest, widest, int(np.clip(2 * np.sqrt(fewest), *BINS)) + 1)
    unit = f" [{shown.quantity.unit}]" if shown.quantity.unit else ""
    with panel() as (figure, axes):
        for name, errors in found.items():
            inside = np.clip(errors, edges[0], edges[-1])
            axes.hist(
                inside, edges.tolist(), weights=np.full(len(inside), 100 / len(inside)), histtype="step",
                color=colour_of(name, names), linewidth=1.3, label=name,
            )  # fmt: skip
        axes.set(title=f"{shown.title}: errors", xlabel=f"prediction minus label{unit}")
        axes.set(ylabel="share of values [%]", xlim=(edges[0], edges[-1]))
        axes.legend(loc="upper left")
        sets = "; ".join(f"{part.name}: {said_of(part, shown)}" for part in parts)
        return _png(
            figure, f"errors_{shown.title}", f"Histogram of errors of {shown.title}. {sets}"
        )


def learning_curve(curve: Curve, history: History, best: int | None) -> Picture:
    """One quantity along the training."""
    stages = history.stages
    steps = np.arange(len(stages)) if stages else history.epochs
    few = len(steps) <= 60
    with panel() as (figure, axes):
        for name, values in curve.values.items():
            there = np.isfinite(values)
            axes.plot(
                steps[there], values[there], color=colour_of(name, ()), linewidth=1.3,
                marker="." if few else None, label=name,
            )  # fmt: skip
        together = np.concatenate([v[np.isfinite(v)] for v in curve.values.values()])
        if curve.is_error and (together > 0).all() and together.max() > 3 * together.min():
            axes.set_yscale("log")
        chosen = np.flatnonzero(history.epochs == best) if best is not None else np.array([])
        if len(chosen):
            axes.axvline(float(steps[chosen[0]]), color="0.45", linewidth=0.9, linestyle="dashed",
                         label="best")  # fmt: skip
        if stages and len(stages) <= 16:
            axes.set_xticks(steps, stages, rotation=60, ha="right", size=8)
            figure.subplots_adjust(bottom=0.3)
        unit = f" [{curve.unit}]" if curve.unit else ""
        axes.set(
            title=curve.title, xlabel="stage" if stages else "epoch", ylabel=f"{curve.title}{unit}"
        )
        axes.legend()
        ends = ", ".join(
            f"{name} ends at {v[np.isfinite(v)][-1]:.4g}" for name, v in curve.values.items()
        )
        return _png(
            figure, f"learning_{curve.title}", f"Learning curve: {curve.title}{unit}; {ends}"
        )


def _png(figure: Figure, name: str, alt: str) -> Picture:
    made = io.BytesIO()
    figure.savefig(made, format="png")
    stem = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
    return Picture(f"{stem}.png", made.getvalue(), alt)
