"""``atomtrain check``. The kit, and torch, are imported when the command runs, not for its help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomtrain_testing import Outcome


app = typer.Typer(add_completion=False)


@app.command("check")
def check(
    architecture: Annotated[
        str, typer.Argument(help="An installed architecture.", metavar="ARCHITECTURE")
    ],
    hypers: Annotated[
        Optional[Path],
        typer.Option(
            help="YAML file with small hypers ('model', 'training') and what is promised."
        ),
    ] = None,
    only: Annotated[
        Optional[list[str]], typer.Option(help="Run this check (and what it needs). Repeatable.")
    ] = None,
    golden: Annotated[
        Optional[Path],
        typer.Option(help="Folder with golden checkpoints of the released versions."),
    ] = None,
    write_golden: Annotated[
        Optional[Path],
        typer.Option(help="Check nothing; write a golden checkpoint of these versions here."),
    ] = None,
) -> None:
    """Check that an architecture does what every architecture must."""
    import atomtrain_testing as kit

    subject = kit.subject_from(architecture, hypers, golden)
    if write_golden is not None:
        typer.echo(f"written: {kit.write_golden(subject, write_golden)}")
        return
    if not _report(kit.run_all(subject, kit.known(only))):
        raise typer.Exit(code=1)


def _report(outcomes: Iterable[Outcome]) -> bool:
    """Print every outcome as it comes; whether nothing failed."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False)
    styles = {"passed": "green", "failed": "bold red", "skipped": "yellow"}
    counts = dict.fromkeys(styles, 0)
    for outcome in outcomes:
        counts[outcome.verdict] += 1
        style = styles[outcome.verdict]
        console.print(f"{outcome.verdict:8}", style=style, end=" ")
        console.print(outcome.check.name, end="  ")
        console.print(outcome.check.summary, style="dim")
        if outcome.message:
            for line in outcome.message.splitlines():
                console.print(f"         {line}")
    console.print(", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    return counts["failed"] == 0
