"""``atomtrain export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def export(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint: path or https address.", metavar="CHECKPOINT")
    ],
    output: Annotated[
        Optional[Path],
        typer.Option("-o", "--output", help="The model (.pt), or a checkpoint (.ckpt)."),
    ] = None,
    metadata: Annotated[
        Optional[Path],
        typer.Option(help="YAML file with name, description, authors, references."),
    ] = None,
    extensions: Annotated[
        Optional[Path],
        typer.Option("-e", "--extensions", help="Folder for libraries the model may need."),
    ] = None,
) -> None:
    """Export a checkpoint as a model that engines run."""
    from atomtrain import api

    api.export(checkpoint, output=output, metadata=metadata, extensions=extensions)
