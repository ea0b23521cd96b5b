"""``atomtrain eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def evaluate(
    model: Annotated[Path, typer.Argument(help="An exported model.", metavar="MODEL")],
    options: Annotated[
        Path,
        typer.Argument(
            help="Structures and targets (YAML); for --verify also a file of structures.",
            metavar="OPTIONS",
        ),
    ],
    # a text, because a path would lose the slash at its end
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="Where predictions go: a name in .xyz, .traj, .db, .json, .mts or .zip, or a folder (ends in '/').",
        ),
    ] = "output.xyz",
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Structures at once.")
    ] = 1,
    extensions: Annotated[
        Optional[Path],
        typer.Option(
            "-e", "--extensions", "--extensions-dir", help="Folder of libraries of the model."
        ),
    ] = None,
    check_consistency: Annotated[
        bool, typer.Option("--check-consistency", help="Let metatomic check in- and outputs.")
    ] = False,
    warm_up: Annotated[
        bool,
        typer.Option(
            "--warm-up/--no-warm-up",
            help="Call the model before times are taken: it compiles then.",
        ),
    ] = True,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Only try whether the model is right: forces against energies, repeated calls.",
        ),
    ] = False,
) -> None:
    """Evaluate an exported model on structures."""
    from atomtrain import api

    if verify:
        api.verify(model, options, extensions=extensions)
        return
    api.evaluate(
        model,
        options,
        output=output,
        batch_size=batch_size,
        extensions=extensions,
        check_consistency=check_consistency,
        warm_up=warm_up,
    )
