"""The results as pictures: errors against what they cost, and against the amount of data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomtrain.files import replacing
from atomtrain_compare.results import Comparison, Group
from atomtrain_compare.table import split_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""told apart by people who see fewer colours as well"""
MARKERS = "osD^vP*X"
COSTS = (("training_seconds", "training, s"), ("step_us", "step of dynamics, µs/atom"))


def draw(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the pictures there is something to show in; where they are."""
    written = []
    for name, figure in (
        ("comparison.png", costs(comparison)),
        ("learning.png", learning(comparison)),
    ):
        if figure is not None:
            with replacing(folder / name) as temporary:
                figure.savefig(temporary, dpi=150)
            written.append(folder / name)
    return written


def costs(comparison: Comparison) -> Figure | None:
    """Errors against training time, and against the time of a step; of the largest training set."""
    largest = comparison.sizes[-1]
    groups = [g for g in comparison.groups if g.structures == largest and g.done]
    quantities = [name for name in comparison.quantities if any(g.values(name) for g in groups)]
    shown = [cost for cost in COSTS if any(g.values(cost[0]) for g in groups)]
    if not quantities or not shown:
        return None
    figure, places = _panels(len(quantities), len(shown), comparison)
    for row, name in zip(places, quantities, strict=True):
        for axes, (cost, _) in zip(row, shown, strict=True):
            for group in groups:
                _points(axes, group, cost, name, _style(comparison, group))
            _scaled(axes.xaxis, [v for g in groups for v in g.values(cost)])
            _scaled(axes.yaxis, [v for g in groups for v in g.values(name)])
            axes.label_outer()
        row[0].set_ylabel(_label(name))
    for axes, (_, label) in zip(places[-1], shown, strict=True):
        axes.set_xlabel(label)
    steps = {r.step_atoms for g in groups for r in g.done if r.step_us is not None}
    if len(steps) == 1:
        places[0][-1].set_title(f"exported model, {steps.pop()} atoms", fontsize=9, color="0.35")
    _finish(figure, places, f"{largest:,} structures to train on, {_judged(comparison)}")
    return figure


def learning(comparison: Comparison) -> Figure | None:
    """Errors against the number of structures, both logarithmic."""
    groups = [g for g in comparison.groups if g.done]
    quantities = [name for name in comparison.quantities if any(g.values(name) for g in groups)]
    if len({g.structures for g in groups}) < 2 or not quantities:
        return None
    figure, places = _panels(1, len(quantities), comparison)
    for axes, name in zip(places[0], quantities, strict=True):
        for variant in comparison.about["variants"]:
            own = [g for g in groups if g.variant == variant and g.values(name)]
            if not own:
                continue
            style = _style(comparison, own[0])
            line = {key: style[key] for key in ("color", "label")}
            sizes = [g.structures for g in own]
            middles = [g.middle(name) for g in own]
            axes.plot(sizes, middles, marker=style["marker"], markersize=6, linewidth=1.4, **line)
            low, high = ([end(g.values(name)) for g in own] for end in (min, max))
            axes.fill_between(sizes, low, high, color=style["color"], alpha=0.15, linewidth=0)
        _scaled(axes.yaxis, [v for g in groups for v in g.values(name)], always=True)
        axes.set_xscale("log")
        axes.set_xticks(comparison.sizes, [f"{size:,}" for size in comparison.sizes])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="structures to train on", ylabel=_label(name))
    _finish(figure, places, _judged(comparison))
    return figure


def _judged(comparison: Comparison) -> str:
    about = comparison.about
    count = about["structures"][about["judged_on"]]
    return f"errors on {count:,} of the {about['judged_on']} set; {about['budget']}"


def _panels(rows: int, columns: int, comparison: Comparison) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    lines = -(-len(comparison.about["variants"]) // 3)
    size = (max(4.2 * columns, 5.0), 2.9 * rows + 0.9 + 0.25 * lines)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False)
    for axes in places.flat:
        axes.grid(which="major", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, places


def _style(comparison: Comparison, group: Group) -> dict[str, Any]:
    k = list(comparison.about["variants"]).index(group.variant)
    label = textwrap.fill(group.variant, 34)
    return {"color": COLOURS[k % 8], "marker": MARKERS[(k + k // 8) % 8], "label": label}


def _points(axes: Axes, group: Group, x: str, y: str, style: dict[str, Any]) -> None:
    """The runs of a variant, small, and their median."""
    across, up = group.middle(x), group.middle(y)
    if across is None or up is None:
        return
    if len(group.done) > 1:
        faint = {**style, "label": None, "alpha": 0.45}
        axes.plot(group.values(x), group.values(y), linestyle="", markersize=4, **faint)
    axes.plot([across], [up], linestyle="", markersize=9, markeredgecolor="white", **style)


def _scaled(axis: Any, values: Sequence[float], always: bool = False) -> None:
    """A logarithmic axis with numbers that people read; a linear one where values hardly differ."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values), max(values)
    if low <= 0 or not (always or high > 1.5 * low):
        margin = 0.25 * (high - low) or 0.25 * abs(high) or 1.0
        axis.axes.set(**{f"{axis.axis_name}lim": (low - margin, high + margin)})
        return
    margin = max((high / low) ** 0.12, 1.1)
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.axes.set(**{f"{axis.axis_name}lim": (low / margin, high * margin)})
    steps = (1, 2, 5) if high > 3 * low else (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    axis.set_major_locator(LogLocator(subs=steps if high < 300 * low else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _label(name: str) -> str:
    title, unit = split_unit(name)
    return f"{title}, {unit}" if unit else title


def _finish(figure: Figure, places: Any, title: str) -> None:
    known: dict[str, Any] = {}
    for axes in places.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    figure.suptitle(title, fontsize=10)
    figure.align_ylabels()
    figure.legend(
        known.values(),
        known.keys(),
        loc="outside lower center",
        ncols=min(3, len(known)),
        frameon=False,
        fontsize=9,
    )
