"""``atomtrain show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    path: Annotated[Path, typer.Argument(help="A checkpoint or an exported model.")],
) -> None:
    """Show what a checkpoint or a model is."""
    from rich.console import Console

    from atomtrain import api
    from atomtrain.report.show import table

    Console(soft_wrap=True).print(table(api.show(path), str(path)))
