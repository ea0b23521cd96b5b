"""The ``atomtrain`` command: what it offers, and how its errors look."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from atomtrain._version import __version__
from atomtrain.cli import architectures, convert, elsewhere, eval_, export, show, train
from atomtrain.contract import catalog, environments
from atomtrain.errors import AtomtrainError, PluginError
from atomtrain.files import is_disk


class _WithPlugins(TyperGroup):
    """Also offers the commands of plugins."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_plugin_commands())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        found = _plugin_commands().get(cmd_name)
        if own is None and found is None:
            environments.look_for_command(cmd_name)
        return own if own is not None or found is None else _OfPlugin(found)


class _OfPlugin(TyperCommand):
    """A plugin's command, whose module is imported when it is called: help names it from metadata."""

    def __init__(self, installed: catalog.Installed) -> None:
        super().__init__(installed.name, help=f"(from {installed.origin})")
        self.installed = installed

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return self._load().make_context(*args, **kwargs)

    def _load(self) -> Any:
        try:
            return typer.main.get_command(self.installed.entry_point.load())
        except Exception as error:
            raise PluginError(
                f"the command '{self.name}' of {self.installed.origin} cannot be loaded: "
                f"{type(error).__name__}: {error}. Reinstall it or report it to its authors"
            ) from error


def _plugin_commands() -> dict[str, catalog.Installed]:
    return {c.name: c for c in catalog.installed(catalog.COMMANDS)}


app = typer.Typer(
    name="atomtrain",
    cls=_WithPlugins,
    help="Train machine-learned models of atoms from one YAML file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("eval")(eval_.evaluate)
app.command("export")(export.export)
app.command("convert")(convert.convert)
app.command("show")(show.show)
app.command("architectures")(architectures.architectures)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"atomtrain {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--traceback", "--debug", help="Show tracebacks (also: ATOMTRAIN_DEBUG=1)."),
    ] = False,
) -> None:
    if debug:
        os.environ["ATOMTRAIN_DEBUG"] = "1"


def main() -> None:
    """Run the command line: errors of users are one message and exit code 1, no traceback.

    What is in another environment is run there.
    """
    environments.stop_with_parent()
    try:
        app()
    except environments.OtherEnvironment as error:
        sys.exit(elsewhere.run_there(error, sys.argv[1:]))
    except AtomtrainError as error:
        if os.environ.get("ATOMTRAIN_DEBUG"):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if not is_disk(error) or os.environ.get("ATOMTRAIN_DEBUG"):
            raise
        where = f"'{error.filename}': " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
