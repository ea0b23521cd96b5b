"""``atomtrain new``: asks what the template needs to know and renders it."""

from __future__ import annotations

import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from atomtrain_template.names import LEVELS, LICENSES, check_name

app = typer.Typer(add_completion=False)
Level = Enum("Level", {name: name for name in LEVELS}, type=str)  # type: ignore[misc]
License = Enum("License", {name: name for name in LICENSES}, type=str)  # type: ignore[misc]


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the architecture, such as my-arch.")],
    level: Annotated[
        Optional[Level], typer.Option("--level", help="How much of it is to be your own.")
    ] = None,
    author: Annotated[Optional[str], typer.Option("--author", help="Your name.")] = None,
    email: Annotated[Optional[str], typer.Option("--email", help="Your address.")] = None,
    license_: Annotated[
        Optional[License], typer.Option("--license", help="The project's licence.")
    ] = None,
    no_input: Annotated[
        bool, typer.Option("--no-input", help="Ask nothing; take the defaults.")
    ] = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The folder to make the project in.")
    ] = Path("."),
) -> None:
    """Start an architecture of your own: a project that installs, trains and passes its tests."""
    check_name(name)
    ask = not no_input and somebody_there()
    if level is None:
        level = _choose("level", LEVELS, Level) if ask else Level("features")
    if author is None:
        author = _ask("author", _git("user.name") or "Your Name", ask)
    if email is None:
        email = _ask("email", _git("user.email") or "you@example.org", ask)
    if license_ is None:
        license_ = _choose("license", LICENSES, License) if ask else License("BSD-3-Clause")
    from atomtrain_template.render import render  # cookiecutter takes a moment to import

    project = render(
        name,
        level=str(level.value),
        author=author,
        email=email,
        license=str(license_.value),
        output=output,
    )
    typer.echo(
        f"written: {project}\n"
        f"next: cd {project}; pip install -e '.[test]'; pytest; cd example; "
        "atomtrain train options.yaml"
    )


def somebody_there() -> bool:
    """Whether questions would be answered: not in scripts."""
    return sys.stdin.isatty()


def _ask(what: str, default: str, ask: bool) -> str:
    return str(typer.prompt(what, default=default)) if ask else default


def _choose(what: str, choices: dict[str, str], kind: Any) -> Any:
    """One of the choices, by name or number; the first is the default."""
    names = list(choices)
    for number, (name, summary) in enumerate(choices.items(), start=1):
        typer.echo(f"  {number} {name:<12} {summary}")
    while True:
        answer = str(typer.prompt(what, default=names[0])).strip()
        if answer.isdigit() and 1 <= int(answer) <= len(names):
            answer = names[int(answer) - 1]
        if answer in names:
            return kind(answer)
        typer.echo(f"one of: {', '.join(names)}")


def _git(key: str) -> str:
    """What git calls the person at the keyboard; empty if it does not know."""
    try:
        done = subprocess.run(["git", "config", key], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
