"""``atomtrain report``. What it needs is imported when it runs, not for its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, List, Optional  # typer reads them on Python 3.10

import typer

app = typer.Typer(add_completion=False)


@app.command("report")
def report(
    what: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, a checkpoint, or an exported model (anybody's).",
            metavar="RUN|MODEL",
        ),
    ],
    data: Annotated[
        Optional[Path],
        typer.Argument(
            help="Structures with labels, or an eval file (YAML). Absent: the sets of the training.",
            metavar="[DATA]",
        ),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option(
            "-o",
            "--output",
            help="The page; figures go into a folder of its name. Absent: report.html in the run's folder, or here.",
        ),
    ] = None,
    by: Annotated[
        Optional[List[str]],
        typer.Option("--by", help="Errors of groups by this value of structures (config_type)."),
    ] = None,
    structures: Annotated[
        int, typer.Option("-n", "--structures", min=1, help="Most structures of a set looked at.")
    ] = 20_000,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Structures at once (exported model).")
    ] = 8,
    extensions: Annotated[
        Optional[Path],
        typer.Option(
            "-e", "--extensions", "--extensions-dir", help="Folder of libraries of the model."
        ),
    ] = None,
) -> None:
    """Write report.html: how good a model is, and where it is bad."""
    from rich.console import Console

    from atomtrain.report.console import logging_to
    from atomtrain_report import report

    with logging_to(None, Console()):
        page = report(
            what,
            data,
            output=output,
            structures=structures,
            by=by or (),
            batch_size=batch_size,
            extensions=extensions,
        )
    typer.echo(f"written: {page} (figures: {page.with_suffix('')})")
