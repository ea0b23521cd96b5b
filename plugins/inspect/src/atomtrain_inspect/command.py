"""``atomtrain inspect``. What it needs is imported when it runs, not for its help."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, List  # typer reads them on Python 3.10

import typer

from atomtrain_inspect.arguments import Format, Keys, Reader, keys_given

if TYPE_CHECKING:
    from atomtrain_inspect.finding import Report

app = typer.Typer(add_completion=False)


@app.command("inspect")
def inspect(
    files: Annotated[
        List[str],
        typer.Argument(
            help="Files of structures (wildcards too), or one options file: the sets that it makes.",
            metavar="FILES",
        ),
    ],
    key: Keys = None,
    unit: Annotated[str, typer.Option(help="Unit of energies. Absent: not known.")] = "",
    length_unit: Annotated[str, typer.Option(help="Unit of positions.")] = "angstrom",
    reader: Reader = None,
    format: Format = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if there are serious findings.")
    ] = False,
) -> None:
    """Say whether data are sound: units, signs, outliers, copies, leaks between sets."""
    from atomtrain.errors import OptionsError
    from atomtrain_inspect import inspect_files, inspect_options

    keys = keys_given(key or ())
    options = [name for name in files if Path(name).suffix.lower() in (".yaml", ".yml")]
    if options:
        said = keys or unit or reader or format or length_unit != "angstrom"
        if len(files) > 1 or said:
            raise OptionsError(
                f"'{options[0]}' is an options file, which says keys and units itself: give it alone"
            )
        report = inspect_options(options[0])
    else:
        report = inspect_files(
            files, reader=reader, format=format, length_unit=length_unit, unit=unit, keys=keys
        )
    if json:
        typer.echo(json_.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        _show(report)
    if strict and report.count("serious"):
        raise typer.Exit(code=1)


def _show(report: Report) -> None:
    from rich.console import Console

    from atomtrain_inspect.finding import SEVERITIES

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    for topic, lines in report.facts.items():
        console.print(topic, style="bold")
        for line in lines:
            console.print(f"  {line}")
    styles = {"serious": "bold red", "warning": "yellow", "note": "cyan"}
    counts = ", ".join(f"{report.count(severity)} {severity}" for severity in SEVERITIES)
    console.print(f"findings: {counts}", style="bold")
    for finding in report.findings:
        console.print(f"  {finding.severity:8}", style=styles[finding.severity], end=" ")
        console.print(f"{finding.text} [{finding.check}]")
