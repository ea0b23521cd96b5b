"""``atomtrain compare``. What it needs is imported when it runs, not for its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, List, Optional  # typer reads them on Python 3.10

import typer

app = typer.Typer(add_completion=False)


@app.command("compare")
def compare(
    options: Annotated[
        List[str],
        typer.Argument(help="Options files (YAML), with the same data.", metavar="OPTIONS"),
    ],
    changes: Annotated[
        Optional[List[str]],
        typer.Option(
            "--with",
            help="A variant: keys to override in each file, as in 'architecture.name=ace "
            "architecture.model.num_layers=2'; '' is the file as it is. Repeatable. Absent: the files as they are.",
            metavar="KEYS",
        ),
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Train each so many epochs.")] = None,
    minutes: Annotated[
        Optional[float],
        typer.Option(help="Train each as many epochs as fit; what one costs is measured first."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Train each so often, with seeds of its own.")] = 1,
    structures: Annotated[
        str,
        typer.Option(
            help="Sizes of training sets, for learning curves: 100,300,all.", metavar="SIZES"
        ),
    ] = "",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the runs and results.")
    ] = Path("compare"),
) -> None:
    """Train variants on the same split with the same budget: one table, one picture of errors and costs.

    The same command again goes on where it was interrupted.
    """
    from rich.console import Console

    from atomtrain_compare import comparison, table

    console = Console()
    found = comparison.compare(
        options,
        changes or (),
        output=output,
        seeds=seeds,
        epochs=epochs,
        minutes=minutes,
        structures=_sizes(structures),
        console=console,
    )
    if found.results:
        console.print(table.in_terminal(found, console))
        for error in table.errors(found):
            console.print(error, style="red", markup=False, highlight=False, soft_wrap=True)
        for note in table.notes(found):
            console.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)
        names = sorted(path.name for path in output.glob("*.png"))
        said = ", ".join(["comparison.md", "comparison.json", *names])
        console.print(f"written: {output}/ ({said})", markup=False, highlight=False, soft_wrap=True)
    if found.interrupted:
        console.print("interrupted: the same command goes on from here", style="yellow")
        raise typer.Exit(code=130)
    if found.failed:
        raise typer.Exit(code=1)


def _sizes(text: str) -> list[int | str]:
    from atomtrain.errors import OptionsError
    from atomtrain_compare.comparison import ALL

    found: list[int | str] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word != ALL and not word.isdigit():
            raise OptionsError(
                f"--structures {text}: '{word}' is no number of structures; write --structures 100,300,{ALL}"
            )
        found.append(ALL if word == ALL else int(word))
    return found
