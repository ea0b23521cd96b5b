"""The command line starts light, lists plugins, and fails with one message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.installing import good, install

from atomtrain_testing.subject import environment


def run(
    code: str, *arguments: str, site: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    env = environment(*filter(None, [site]), **{"COLUMNS": "200", **changes})
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


BROKEN = {
    "import": ("import no_such_module", "cannot be imported: ModuleNotFoundError"),
    "empty": ("", "does not answer the hook describe_architecture"),
    "unbuilt": (
        good("cli-unbuilt").replace("@hookimpl\ndef build_model", "def build_model"),
        "does not answer the hook build_model",
    ),
    "misspelt": (
        good("cli-misspelt") + "\n@hookimpl\ndef bild_model(hypers):\n    return 1\n",
        "implements a hook that does not exist",
    ),
    "raising": (
        "from atomtrain.contract import hookimpl\n"
        "@hookimpl\ndef describe_architecture():\n    1 / 0\n",
        "failed in describe_architecture: ZeroDivisionError",
    ),
    "later": (good("cli-later"), "was made for atomtrain >=7, but atomtrain"),
    "twice": (good("cli-twice"), "several distributions provide this name"),
}


def test_broken_ones_are_listed_and_nothing_else_suffers(tmp_path: Path) -> None:
    """Every way to be broken at once: each row says what is wrong with its own plugin."""
    for name, (source, _) in BROKEN.items():
        requires = "atomtrain>=7" if name == "later" else ""
        install(tmp_path, f"cli-{name}", source, requires=requires)
    install(tmp_path, "cli-again", good("cli-twice"), entry="cli-twice")
    install(tmp_path, "cli-sound", good("cli-sound"))
    code = "from atomtrain.cli.app import main; main()"
    done = run(code, "architectures", site=tmp_path, COLUMNS="1000")
    assert done.returncode == 0 and not done.stderr, done.stderr
    rows = done.stdout.splitlines()
    for name, (_, problem) in BROKEN.items():
        found = [row for row in rows if row.startswith(f"cli-{name} ")]
        assert found and all(problem in row and " broken " in row for row in found), found
    assert sum(row.startswith("cli-twice ") for row in rows) == 2
    (sound,) = (row for row in rows if row.startswith("cli-sound "))
    assert "experimental" in sound and "broken" not in sound
    assert "cli-sound 1.0" in run(code, "architectures", "cli-sound", site=tmp_path).stdout


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
