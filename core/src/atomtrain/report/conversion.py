"""Showing how a conversion goes, and what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from atomtrain.data.convert import Converted, convert
from atomtrain.data.readers import display
from atomtrain.report.live import can_be_drawn_on

log = logging.getLogger("atomtrain")
EVERY = 20.0
"""seconds between lines where there is no terminal"""


def converting(read_from: str | Sequence[str], folder: Path, **more: Any) -> Converted:
    """:func:`atomtrain.data.convert.convert`, with a bar on a terminal and lines elsewhere."""
    console = Console()
    drawn = can_be_drawn_on(console)
    said = begun = time.monotonic()
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[done]} structures"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not drawn,
        transient=True,
    )
    task = bar.add_task(f"reading {display(read_from)}", total=1.0, done="0")

    def progress(structures: int, part: float) -> None:
        nonlocal said
        bar.update(task, completed=part, done=f"{structures:,}")
        if not drawn and time.monotonic() - said > EVERY:
            said = time.monotonic()
            log.info(f"{structures} structures, {100 * part:.0f} %")

    with bar:
        found = convert(read_from, folder, progress=progress, **more)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    for note in found.notes:
        log.info(note)
    for warning in found.warnings:
        log.warning(warning)
    for name, why in found.left_out.items():
        log.warning(f"'{name}' is left out: {why}")
    log.info(
        f"made '{folder}': {found.summary}; {size:.1f} MB, {time.monotonic() - begun:.1f} s. "
        f"Read it as any other file: read_from: {folder}"
    )
    return found
