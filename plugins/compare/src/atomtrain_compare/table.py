"""The results as a table, in the terminal and in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from atomtrain_compare.results import Comparison, Group

LESS = ("params", "model", "epochs", "memory")
"""columns that a narrow terminal has no room for, those that matter least first"""


@dataclass(frozen=True)
class Column:
    """A column: its title, the unit below, and what stands in a row."""

    title: str
    unit: str
    cell: Callable[[Group], str]
    text: bool = False


def number(value: float) -> str:
    """Three significant digits, more where a number is larger."""
    if value and abs(value) < 1e-3:
        return f"{value:.2e}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def spread(values: Sequence[float]) -> str:
    """The median of some numbers, and their range."""
    ordered = sorted(values)
    if not ordered:
        return "-"
    n = len(ordered)
    middle = number((ordered[(n - 1) // 2] + ordered[n // 2]) / 2)
    if n == 1 or number(ordered[0]) == number(ordered[-1]):
        return middle
    return f"{middle} ({number(ordered[0])} to {number(ordered[-1])})"


def split_unit(name: str) -> tuple[str, str]:
    """``forces RMSE [meV/A]`` in two."""
    title, _, unit = name.partition(" [")
    return title, pretty(unit.removesuffix("]"))


def pretty(unit: str) -> str:
    """A unit as it is printed."""
    return unit.replace("/A^3", "/Å³").replace("/A", "/Å") if unit else ""


def columns(comparison: Comparison) -> list[Column]:
    """What the table has: a column only where something is known."""

    def middle(name: str) -> Callable[[Group], str]:
        def cell(group: Group) -> str:
            found = group.middle(name)
            return "-" if found is None else number(found)

        return cell

    def whole(name: str) -> Callable[[Group], str]:
        def cell(group: Group) -> str:
            found = group.middle(name)
            return "-" if found is None else f"{found:,.0f}"

        return cell

    def values(name: str) -> Callable[[Group], str]:
        return lambda group: spread(group.values(name))

    def seconds(group: Group) -> str:
        resumed = any(result.resumed for result in group.done)
        return spread(group.values("training_seconds")) + "*" * resumed

    def trained(group: Group) -> str:
        return seconds(group) if group.done else "failed"

    found = [Column("variant", "", lambda group: group.variant, text=True)]
    if comparison.partial:
        found.append(Column("structures", "", lambda group: f"{group.structures:,}"))
    found += [Column("epochs", "", whole("epochs")), Column("training", "s", trained)]
    found += [Column(*split_unit(name), values(name)) for name in comparison.quantities]
    if any(result.step_us is not None for result in comparison.results):
        found.append(Column("step of dynamics", "µs/atom", middle("step_us")))
    if any(result.peak_mb is not None for result in comparison.results):
        found.append(Column("memory", "MB", whole("peak_mb")))
    found += [
        Column("model", "MB", middle("model_mb")),
        Column("params", "", whole("parameters")),
    ]
    return found


def in_terminal(comparison: Comparison, console: Console) -> Table:
    """The table for a terminal. Where that is too narrow it leaves out ranges, and then columns that matter less.

    Whatever users wrote is shown as it is, not as markup. Errors have no room in it; they are :func:`errors`.
    """
    shown, ranges = columns(comparison), True
    table = _built(comparison, shown, ranges)
    wide = console.options.update(width=1000)
    for left_out in ("ranges", *LESS):
        if console.measure(table, options=wide).maximum <= console.width:
            break
        ranges = False
        shown = [column for column in shown if column.title != left_out]
        table = _built(comparison, shown, ranges)
    return table


def _built(comparison: Comparison, shown: Sequence[Column], ranges: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in shown:
        words = column.title.replace("step of", "step\u00a0of").split(" ")
        head = Text("\n".join([*words, column.unit]).strip())
        justify: Any = "left" if column.text else "right"
        table.add_column(head, justify=justify, no_wrap=True)
    for group in comparison.groups:
        style = "red" if group.error and not group.done else None
        table.add_row(*(Text(_cell(column, group, ranges)) for column in shown), style=style)
    return table


def _cell(column: Column, group: Group, ranges: bool) -> str:
    """A cell with the range of a number below it."""
    cell = column.cell(group)
    if column.text:
        return textwrap.fill(cell, 20)
    middle, _, rest = cell.partition(" (")
    low_high, _, mark = rest.partition(")")
    below = "\n" + low_high.replace(" to ", "-") if ranges and rest else ""
    return f"{middle}{mark}{below}"


def errors(comparison: Comparison) -> list[str]:
    """A line for each variant that failed."""
    sizes = comparison.partial
    return [
        f"{group.variant}{f', {group.structures:,} structures' if sizes else ''}: {group.error}"
        for group in comparison.groups
        if group.error
    ]


def in_markdown(comparison: Comparison) -> str:
    """The table in Markdown."""
    shown = columns(comparison)
    if comparison.failed:
        shown.append(Column("error", "", lambda group: group.error, text=True))
    heads = [f"{c.title}, {c.unit}" if c.unit else c.title for c in shown]
    lines = [_row(heads), "|" + "|".join("---" if c.text else "---:" for c in shown) + "|"]
    return "\n".join([*lines, *(_row([c.cell(g) for c in shown]) for g in comparison.groups)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def notes(comparison: Comparison) -> list[str]:
    """What has to be known to read the table, a sentence each."""
    about = comparison.about
    sizes = about["structures"]
    said = ", ".join(f"{count:,} for {name}" for name, count in sizes.items())
    seeds = ", ".join(map(str, about["seeds"]))
    if comparison.partial:
        said += "; trained on as many of these as the table says"
    found = [f"Structures: {said}; budget: {about['budget']}; seed {seeds}."]
    tested = "test" if about["judged_on"] == "test" else "validation"
    found.append(
        f"Errors are those of the exported model on the {tested} set"
        + (
            "."
            if tested == "test"
            else ", by which the best epoch was chosen too: there is no test set."
        )
    )
    if len(about["seeds"]) > 1:
        found.append("Numbers are medians over the seeds, with their range.")
    steps = {(r.step_atoms, r.step_by) for r in comparison.results if r.step_us is not None}
    if steps:
        by = {"ASE": "through ASE's calculator", "metatomic": "through metatomic"}
        ways = "; ".join(f"{atoms} atoms, {by[name]}" for atoms, name in sorted(steps))
        found.append(f"A step of dynamics is energy and forces of one structure ({ways}).")
    if any(result.resumed for result in comparison.results):
        found.append("*: interrupted on the way; times are sums of the parts.")
    return found
