"""``atomtrain show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def show(
    path: Annotated[
        Path, typer.Argument(help="A checkpoint, an exported model, or the folder of a run.")
    ],
    extensions: Annotated[
        Optional[Path],
        typer.Option(
            "-e", "--extensions", "--extensions-dir", help="Folder of libraries of the model."
        ),
    ] = None,
) -> None:
    """Show what a checkpoint or a model is, and what came out of a run."""
    from rich.console import Console

    from atomtrain import api
    from atomtrain.report.show import table

    Console(soft_wrap=True).print(table(api.show(path, extensions=extensions), str(path)))
