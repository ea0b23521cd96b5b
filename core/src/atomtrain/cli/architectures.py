"""``atomtrain architectures``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from atomtrain._version import __version__
from atomtrain.contract import catalog, environments

if TYPE_CHECKING:
    from rich.console import Console

    from atomtrain.contract import ArchitectureInfo


def architectures(
    name: Annotated[
        Optional[str],
        typer.Argument(help="Show this one in full.", autocompletion=catalog.names_beginning),
    ] = None,
    add_environment: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FOLDER",
            help="Register another Python environment: what is about its architectures runs there.",
        ),
    ] = None,
    remove_environment: Annotated[
        Optional[Path], typer.Option(metavar="FOLDER", help="Forget a registered environment.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="List for programs; of this environment alone.")
    ] = False,
) -> None:
    """List what is installed, here and in registered environments, or show one architecture."""
    from rich.console import Console

    # names and texts are those of plugins, whatever brackets and colons they have
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    if as_json:
        commands = [one.name for one in catalog.installed(catalog.COMMANDS)]
        told = {"atomtrain": __version__, "architectures": _installed(), "commands": commands}
        print(json.dumps(told))
    elif add_environment is not None:
        offer = environments.register(add_environment)
        names = ", ".join(one["name"] for one in offer.architectures)
        console.print(f"registered: {offer.environment} ({names})")
    elif remove_environment is not None:
        environments.forget(remove_environment)
        console.print(f"no longer registered: {remove_environment}")
    elif name is None:
        _list(console)
    else:
        _show(console, name)


def _list(console: Console) -> None:
    from atomtrain.errors import PluginError

    found = _installed()
    elsewhere = [one for one in environments.registered() if not environments.is_ours(one)]
    if found:
        _table(console, found)
    elif not elsewhere:
        console.print(
            "No architecture is installed. Architectures are packages of their own:\n"
            "  pip install atomtrain-soap-bpnn"
        )
    for environment in elsewhere:
        console.print(f"\nin the environment {environment}")
        try:
            _table(console, environments.usable(environment).architectures)
        except PluginError as error:
            console.print(f"broken: {error}")


def _table(console: Console, architectures: Iterable[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    titles = ("name", "distribution", "version", "stage", "summary")
    grid = Table(box=None, pad_edge=False)
    for title in titles:
        grid.add_column(title, overflow="fold")
    for one in architectures:
        grid.add_row(*(Text(one[title]) for title in titles))
    console.print(grid)


def _installed() -> list[dict[str, Any]]:
    """What is installed here, as plain data; of what is broken the stage is that, and the summary says why."""
    from atomtrain.errors import PluginError
    from atomtrain.plugins import Architecture

    found = catalog.architectures()
    names = [one.name for one in found]
    rows = []
    for one in found:
        stage, summary = "broken", ""
        aliases: tuple[str, ...] = ()
        try:
            if names.count(one.name) > 1:
                raise PluginError("several distributions provide this name; uninstall all but one")
            info = Architecture(one).info
            stage, summary, aliases = info.stage, info.summary, info.aliases
            if info.deprecation is not None:
                summary += f" (until {info.deprecation.until}; use {info.deprecation.instead})"
        except PluginError as error:
            summary = str(error)
        row = {"name": one.name, "distribution": one.distribution, "version": one.version}
        rows.append({**row, "stage": stage, "summary": summary, "aliases": list(aliases)})
    return rows


def _show(console: Console, name: str) -> None:
    from atomtrain.plugins import open_architecture

    architecture = open_architecture(name)
    info, installed = architecture.info, architecture.installed
    console.print(info.name, style="bold", end=" ")
    console.print(f"({installed.origin}, {info.stage}): {info.summary}")
    if architecture.notice is not None:
        console.print(architecture.notice)
    if info.description:
        console.print(info.description)
    for title, rows in _facts(info):
        if rows:
            console.print(f"\n{title}", style="bold")
            for row in rows:
                console.print(f"  {row}")
    for title, cls in (
        ("architecture.model", architecture.model_hypers_class()),
        ("architecture.training", architecture.trainer_hypers_class()),
    ):
        console.print(f"\n{title}", style="bold")
        _hypers(console, cls, 1)


def _facts(info: ArchitectureInfo) -> list[tuple[str, list[str]]]:
    return [
        ("targets", [", ".join(info.target_kinds)]),
        ("devices, dtypes", [f"{', '.join(info.devices)}; {', '.join(info.dtypes)}"]),
        ("authors", list(map(str, info.authors))),
        ("maintainers", list(map(str, info.maintainers))),
        *((f"references ({kind})", list(refs)) for kind, refs in info.references.items()),
    ]


def _hypers(console: Console, cls: Any, depth: int, above: tuple[Any, ...] = ()) -> None:
    """Every hyper with its default and documentation, sections indented, also those that are absent by default."""
    from pydantic import BaseModel

    from atomtrain.sections import sections_inside, written

    above = (*above, cls)
    for name, field in cls.model_fields.items():
        default = field.get_default(call_default_factory=True)
        text = " ".join((field.description or "").split())
        inside = dict(sections_inside(field.annotation))
        value = "(required)" if field.is_required() else written(default)
        if isinstance(default, BaseModel):
            inside[type(default)], value = "", ""
        _hyper(console, depth, name, value, text)
        for section, way in inside.items():
            steps = way.split(".")[1:]  # <name> where sections are in a dictionary
            for k, step in enumerate(steps, start=1):
                if section not in above:
                    console.print(f"{'  ' * (depth + k)}{step}:")
            if section not in above:  # a loss has losses for its gradients
                _hypers(console, section, depth + 1 + len(steps), above)


def _hyper(console: Console, depth: int, name: str, value: str, text: str) -> None:
    """A key, its value (below it where it has lines of its own) and what it is; on a terminal lines end at words."""
    import textwrap

    indent, lines = "  " * depth, value.splitlines()
    head = f"{name}: {value}" if len(lines) == 1 else f"{name}:"
    line = f"{indent}{head}  {text}"
    if console.is_terminal:
        further = f"{indent}      "
        line = textwrap.fill(
            line, console.width, subsequent_indent=further, break_long_words=False,
            break_on_hyphens=False, replace_whitespace=False, drop_whitespace=True,
        )  # fmt: skip
    console.print(line)
    for part in lines if len(lines) > 1 else ():
        console.print(f"{indent}  {part}")
