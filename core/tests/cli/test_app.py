"""The command line starts light, lists plugins, and fails with one message."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.installing import good, install
from helpers.processes import atomtrain, python

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
    done = python(IMPORTED, *arguments, site=tmp_path)
    assert done.returncode == 0, done.stderr
    imported = done.stdout.split("IMPORTED")[1]
    assert not [name for name in forbidden if f"'{name}'" in imported], imported


COMMAND = """
import typer
print("imported")
app = typer.Typer()
@app.command()
def hello(name: str):
    print(f"hello {name}")
"""


def test_commands_of_plugins(tmp_path: Path) -> None:
    install(tmp_path, "cli-command", COMMAND, "atomtrain.commands", entry="greet",
            target="cli_command:app")  # fmt: skip
    code = "from atomtrain.cli.app import main; main()"
    helped = python(code, "--help", site=tmp_path)
    assert "greet" in helped.stdout and "imported" not in helped.stdout
    called = python(code, "greet", "you", site=tmp_path)
    assert "hello you" in called.stdout, called.stderr


def test_a_shell_completes(tmp_path: Path) -> None:
    """What bash asks for at a tab; where nothing comes back it completes paths."""
    install(tmp_path, "cli-command", COMMAND.replace("name: str", "name: str, politely: bool = False"),
            "atomtrain.commands", entry="greet", target="cli_command:app")  # fmt: skip
    install(tmp_path, "cli-arch", good("cli-arch"))
    code = "import sys; sys.argv[0] = 'atomtrain'; from atomtrain.cli.app import main; main()"
    for words, completed in {
        "atomtrain gr": ["greet"],
        "atomtrain greet --pol": ["imported", "--politely"],
        "atomtrain architectures cli-": ["cli-arch"],
        "atomtrain train opt": [],
    }.items():
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = python(code, site=tmp_path, _ATOMTRAIN_COMPLETE="complete_bash", **asked)
        assert done.stdout.split() == completed, (words, done.stderr)


def test_errors_are_one_message(tmp_path: Path) -> None:
    done = atomtrain(tmp_path, "train", "nothing.yaml")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: options file 'nothing.yaml' does not exist"
    done = atomtrain(tmp_path, "--debug", "train", "nothing.yaml")
    assert "Traceback" in done.stderr
