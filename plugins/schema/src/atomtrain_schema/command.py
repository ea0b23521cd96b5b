"""``atomtrain schema``. What it needs is imported when it runs, not for its help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

FOLDER = Path(".vscode")
SCHEMA = FOLDER / "atomtrain.schema.json"
SETTINGS = FOLDER / "settings.json"
FILES = ["options.yaml", "options*.yaml", "*options.yaml"]


app = typer.Typer(add_completion=False)


@app.command("schema")
def schema(
    vscode: Annotated[
        bool, typer.Option("--vscode", help="Write .vscode/ here, for VS Code's YAML extension.")
    ] = False,
) -> None:
    """Print the JSON schema of options files, for editors."""
    from atomtrain_schema.build import options_schema

    made = options_schema(lambda text: typer.echo(f"warning: {text}", err=True))
    text = json.dumps(made, indent=2, ensure_ascii=False)
    if not vscode:
        typer.echo(text)
        return
    _write_vscode(text)
    typer.echo(f"written: {SCHEMA}, {SETTINGS} (files {', '.join(FILES)})")
    typer.echo("VS Code needs its extension 'YAML' (redhat.vscode-yaml) to use them")


def _write_vscode(schema: str) -> None:
    """The schema and, merged into what is there, the settings that point to it."""
    from atomtrain.errors import OutputError
    from atomtrain.files import replacing

    settings = _settings()
    # on, off, yes, no are booleans in our files, as in YAML 1.1
    settings.setdefault("yaml.yamlVersion", "1.1")
    schemas = settings.setdefault("yaml.schemas", {})
    if not isinstance(schemas, dict):
        raise OutputError(f"'{SETTINGS}': \"yaml.schemas\" is not a section; correct it first")
    schemas.setdefault(SCHEMA.as_posix(), FILES)
    try:
        FOLDER.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder '{FOLDER}': {error.strerror}") from error
    for path, text in (
        (SCHEMA, schema),
        (SETTINGS, json.dumps(settings, indent=4, ensure_ascii=False)),
    ):
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def _settings() -> dict[str, Any]:
    """What the settings are now; OutputError where they could not be written back whole."""
    from atomtrain.errors import OutputError

    if not SETTINGS.exists():
        return {}
    try:
        settings = json.loads(SETTINGS.read_text(encoding="utf-8") or "{}")
    except (OSError, ValueError) as error:
        raise OutputError(
            f"'{SETTINGS}' is not plain JSON ({error}); its comments would be lost, so nothing was "
            f'written. Put this into it by hand: "yaml.yamlVersion": "1.1", "yaml.schemas": '
            f'{{"{SCHEMA.as_posix()}": {json.dumps(FILES)}}}, with the output of '
            f"'atomtrain schema' in '{SCHEMA}'"
        ) from error
    if not isinstance(settings, dict):
        raise OutputError(f"'{SETTINGS}' is not a section of settings; correct it first")
    return settings
