"""``atomtrain export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def export(  # noqa: PLR0913
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A checkpoint: path, http(s) address, or a repository on the Hugging Face hub.",
            metavar="CHECKPOINT",
        ),
    ],
    file: Annotated[
        Optional[str],
        typer.Argument(help="The file in the repository (model.ckpt).", metavar="[FILE]"),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option("-o", "--output", help="The model (.pt), or a checkpoint (.ckpt)."),
    ] = None,
    metadata: Annotated[
        Optional[Path],
        typer.Option("-m", "--metadata", help="YAML: name, description, authors, references."),
    ] = None,
    extensions: Annotated[
        Optional[Path],
        typer.Option("-e", "--extensions", help="Folder for libraries the model may need."),
    ] = None,
    second_derivatives: Annotated[
        bool, typer.Option("--second-derivatives", help="A model that is differentiable twice.")
    ] = False,
    hessian: Annotated[
        bool, typer.Option("--hessian", help="And one with Hessians of energies as outputs.")
    ] = False,
    head: Annotated[
        Optional[str], typer.Option(help="One target alone (energy/pbe), named without variant.")
    ] = None,
    revision: Annotated[
        Optional[str],
        typer.Option(
            "-r", "--revision", "-b", "--branch", help="Branch, tag or commit of the repository."
        ),
    ] = None,
    token: Annotated[
        Optional[str],
        typer.Option(help="Token for private repositories. Absent: HF_TOKEN, or that of a login."),
    ] = None,
) -> None:
    """Export a checkpoint as a model that engines run."""
    from atomtrain import api

    api.export(
        checkpoint,
        file=file,
        revision=revision,
        token=token,
        output=output,
        metadata=metadata,
        extensions=extensions,
        second_derivatives=second_derivatives,
        hessian=hessian,
        head=head,
    )
