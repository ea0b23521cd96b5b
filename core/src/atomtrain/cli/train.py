"""``atomtrain train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def train(
    options: Annotated[Path, typer.Argument(help="The options file (YAML).", metavar="OPTIONS")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The exported model; the checkpoint goes beside.")
    ] = Path("model.pt"),
    extensions: Annotated[
        Optional[Path],
        typer.Option(
            "-e", "--extensions", help="Folder for libraries a third party's model may need."
        ),
    ] = None,
    override: Annotated[
        Optional[list[str]],
        typer.Option("-r", "--override", help="Override a key: a.b.c=value. Repeatable."),
    ] = None,
    restart: Annotated[
        Optional[str],
        typer.Option(help="Checkpoint to go on from, or 'auto' for the newest that fits."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Try one step, say memory, time and files, and leave nothing behind."
        ),
    ] = False,
) -> None:
    """Train a model from an options file."""
    from atomtrain.cli.elsewhere import check_options

    check_options(options, override or [])
    from atomtrain import api

    if dry_run:
        api.dry_run(options, output=output, overrides=override or [], restart=restart)
        return
    result = api.train(
        options,
        output=output,
        extensions=extensions,
        overrides=override or [],
        restart=restart,
    )
    if result.interrupted:
        raise typer.Exit(code=130)
