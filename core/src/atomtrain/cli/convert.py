"""``atomtrain convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, List, Optional  # typer reads them on Python 3.10

import typer


def convert(
    files: Annotated[
        List[str],
        typer.Argument(
            help="Files of structures (wildcards too), or one options file: all that it names.",
            metavar="FILES",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The folder to be made.", metavar="FOLDER")
    ],
    reader: Annotated[
        Optional[str], typer.Option(help="Reader, as in the options. Absent: guessed.")
    ] = None,
    format: Annotated[
        str, typer.Option("-f", "--format", help="Format, as in the options. Absent: guessed.")
    ] = "",
    types: Annotated[
        Optional[List[str]],
        typer.Option(
            "-t", "--type", help="Element of a type of atom: 1=Cu.", metavar="TYPE=ELEMENT"
        ),
    ] = None,
    length_unit: Annotated[
        str,
        typer.Option(help="Unit of positions, to tell what is too close; nothing is converted."),
    ] = "angstrom",
    unconverged: Annotated[
        str,
        typer.Option(help="Structures whose electrons did not converge: refuse, drop or keep."),
    ] = "refuse",
) -> None:
    """Write structures as a data set on disk, which is read in pieces however large it is."""
    from atomtrain import api

    api.convert(
        files,
        output,
        reader=reader,
        format=format,
        types=types or (),
        length_unit=length_unit,
        unconverged=unconverged,
    )
