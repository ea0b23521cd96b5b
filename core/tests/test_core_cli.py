"""The command line starts light, lists plugins, and fails with one message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from core_structures import install
from test_core_contract import good


def run(code: str, *arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONWARNINGS": "ignore", "COLUMNS": "200"}
    if site is not None:
        env["PYTHONPATH"] = str(site)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=env
    )


IMPORTED = """
import sys
from atomtrain.cli.app import main
try:
    main()
finally:
    print("IMPORTED", sorted({"torch", "pydantic", "ase", "numpy"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (("--help",), ("torch", "pydantic", "ase", "numpy")),
        (("--version",), ("torch", "pydantic", "ase", "numpy")),
        (("train", "--help"), ("torch",)),
        (("architectures",), ("torch",)),
        (("architectures", "cli-arch"), ("torch",)),
    ],
)
def test_light(tmp_path: Path, arguments: tuple[str, ...], forbidden: tuple[str, ...]) -> None:
    install(tmp_path, "cli-arch", good("cli-arch"))
    done = run(IMPORTED, *arguments, site=tmp_path)
    assert done.returncode == 0, done.stderr
    imported = done.stdout.split("IMPORTED")[1]
    assert not [name for name in forbidden if f"'{name}'" in imported], imported


def test_architectures(tmp_path: Path) -> None:
    install(tmp_path, "cli-good", good("cli-good"))
    install(tmp_path, "cli-broken", "import no_such_module")
    code = "from atomtrain.cli.app import main; main()"
    listed = run(code, "architectures", site=tmp_path).stdout
    assert "cli-good" in listed and "experimental" in listed
    assert "cli-broken" in listed and "no_such_module" in listed
    shown = run(code, "architectures", "cli-good", site=tmp_path).stdout
    assert "cli-good 1.0, experimental" in shown and "architecture.model" in shown


COMMAND = """
import typer
print("imported")
app = typer.Typer()
@app.command()
def hello(name: str):
    print(f"hello {name}")
"""


def test_commands_of_plugins(tmp_path: Path) -> None:
    install(tmp_path, "cli-command", COMMAND, "atomtrain.commands")
    entry = tmp_path / "cli_command-1.0.dist-info" / "entry_points.txt"
    entry.write_text("[atomtrain.commands]\ngreet = cli_command:app\n")
    code = "from atomtrain.cli.app import main; main()"
    helped = run(code, "--help", site=tmp_path)
    assert "greet" in helped.stdout and "imported" not in helped.stdout
    called = run(code, "greet", "you", site=tmp_path)
    assert "hello you" in called.stdout, called.stderr


def test_no_architecture(tmp_path: Path) -> None:
    code = (
        "from atomtrain.contract import catalog\n"
        "catalog.entry_points = lambda group: ()\n"
        "from atomtrain.cli.app import main; main()"
    )
    assert "pip install atomtrain-soap-bpnn" in run(code, "architectures").stdout


def test_errors_are_one_message() -> None:
    code = "from atomtrain.cli.app import main; main()"
    done = run(code, "train", "nothing.yaml")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: options file 'nothing.yaml' does not exist"
    done = run(code, "--debug", "train", "nothing.yaml")
    assert "Traceback" in done.stderr
