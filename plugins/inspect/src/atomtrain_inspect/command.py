"""``atomtrain inspect``. What it needs is imported when it runs, not for its help."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, List, Optional  # typer reads them on Python 3.10

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    key: Annotated[
        Optional[List[str]],
        typer.Option(
            "-k",
            "--key",
            help="What energy, forces, stress or virial are called: energy=REF_energy. Absent: guessed.",
            metavar="WHAT=KEY",
        ),
    ] = None,
    unit: Annotated[str, typer.Option(help="Unit of energies. Absent: not known.")] = "",
    length_unit: Annotated[str, typer.Option(help="Unit of positions.")] = "angstrom",
    reader: Annotated[
        Optional[str], typer.Option(help="Reader, as in the options. Absent: guessed.")
    ] = None,
    format: Annotated[
        str, typer.Option("-f", "--format", help="Format, as in the options. Absent: guessed.")
    ] = "",
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


def keys_given(given: Sequence[str]) -> dict[str, str]:
    """What ``--key`` says: names by ``energy``, ``forces``, ``stress`` or ``virial``. Raises OptionsError."""
    from atomtrain.errors import OptionsError

    found = {}
    for one in given:
        what, _, name = one.partition("=")
        if what not in ("energy", "forces", "stress", "virial") or not name:
            raise OptionsError(
                f"--key {one}: write what is meant and its name, as in --key energy=REF_energy (energy, forces, "
                "stress or virial)"
            )
        found[what] = name
    if "stress" in found and "virial" in found:
        raise OptionsError("--key: stress and virial are one quantity; give one of them")
    return found


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
