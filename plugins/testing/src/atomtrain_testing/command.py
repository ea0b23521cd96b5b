"""``atomtrain check``. The kit, and torch, are imported when the command runs, not for its help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from atomtrain.contract import catalog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomtrain_testing import Outcome


app = typer.Typer(add_completion=False)


@app.command("check")
def check(
    architecture: Annotated[
        str,
        typer.Argument(
            help="An installed architecture.",
            metavar="ARCHITECTURE",
            autocompletion=catalog.names_beginning,
        ),
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
        typer.Option(
            help="Folder of golden checkpoints; the check 'golden' looks at those in it.",
            metavar="FOLDER",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    write_golden: Annotated[
        Optional[Path],
        typer.Option(
            help="Folder of golden checkpoints; one of the installed versions is written into it, and nothing "
            "is checked.",
            metavar="FOLDER",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Check that an architecture does what every architecture must."""
    import atomtrain_testing as kit

    subject = kit.subject_from(architecture, hypers, golden)
    if write_golden is not None:
        written = kit.write_golden(subject, write_golden)
        typer.echo(
            f"written: {written}; checked by --golden {write_golden}, and by pytest in tests/golden"
        )
        return
    if not _report(kit.run_all(subject, kit.known(only))):
        raise typer.Exit(code=1)


def _report(outcomes: Iterable[Outcome]) -> bool:
    """Print passed and failed checks as they come, and then what there is to know; whether nothing failed."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    styles = {"failed": "bold red", "passed": "green", "skipped": "yellow"}
    found: dict[str, list[Outcome]] = {verdict: [] for verdict in styles}
    for outcome in outcomes:
        found[outcome.verdict].append(outcome)
        if outcome.verdict != "skipped":
            console.print(f"{outcome.verdict:8}", style=styles[outcome.verdict], end=" ")
            console.print(outcome.check.name, end="  ")
            console.print(outcome.check.summary, style="dim")
    for outcome in found["failed"]:
        console.print("\nfailed   ", style=styles["failed"], end="")
        console.print(outcome.message.replace("\n", "\n         "))
    counts = ", ".join(f"{len(some)} {verdict}" for verdict, some in found.items())
    skipped = _folded(found["skipped"])
    console.print(f"\n{counts}{':' if skipped else ''}")
    for line in skipped:
        console.print(f"  {line}")
    return not found["failed"]


def _folded(skipped: list[Outcome]) -> list[str]:
    """One line for all that a failed check stands before, and one for each reason of another kind."""
    blamed: dict[str, list[str]] = {}
    for outcome in skipped:
        if outcome.needs:
            blamed.setdefault(outcome.needs, []).append(outcome.check.name)
    alone = [outcome for outcome in skipped if not outcome.needs]
    return [
        *(f"{len(names)} need '{name}': {', '.join(names)}" for name, names in blamed.items()),
        *(f"{outcome.check.name}: {outcome.message}" for outcome in alone),
    ]
