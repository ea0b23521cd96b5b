"""``atomtrain doctor``. What it needs is imported when it runs, not for its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)
STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "broken": "bold red"}


@app.command("doctor")
def doctor(
    outputs: Annotated[Path, typer.Option(help="The folder that runs are written to.")] = Path(
        "outputs"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure nothing: neither threads nor the disk.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at the installation and the machine: versions, plugins, devices, threads, disk, engines.

    Exits with 1 if something is broken.
    """
    from rich.console import Console

    from atomtrain_inspect.machine import as_json, examined

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    checks, topic = [], ""
    for check in examined(outputs, not quick):
        checks.append(check)
        if json:
            continue
        if check.topic != topic:
            topic = check.topic
            console.print(topic, style="bold")
        console.print(f"  {check.status:8}", style=STYLES[check.status], end=" ")
        console.print(check.text)
    broken = sum(check.status == "broken" for check in checks)
    if json:
        typer.echo(as_json(checks))
    else:
        console.print(
            f"{broken} broken" if broken else "nothing is broken",
            style="bold red" if broken else "bold green",
        )
    if broken:
        raise typer.Exit(code=1)
