"""``atomtrain architectures``: what is installed, and what is wrong with what is broken."""

from __future__ import annotations

from pathlib import Path

from helpers.installing import good, install
from helpers.processes import python


def test_architectures(tmp_path: Path) -> None:
    install(tmp_path, "cli-good", good("cli-good"))
    install(tmp_path, "cli-broken", "import no_such_module")
    code = "from atomtrain.cli.app import main; main()"
    listed = python(code, "architectures", site=tmp_path).stdout
    assert "cli-good" in listed and "experimental" in listed
    assert "cli-broken" in listed and "no_such_module" in listed
    shown = python(code, "architectures", "cli-good", site=tmp_path).stdout
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
    done = python(code, "architectures", site=tmp_path, COLUMNS="1000")
    assert done.returncode == 0 and not done.stderr, done.stderr
    rows = done.stdout.splitlines()
    for name, (_, problem) in BROKEN.items():
        found = [row for row in rows if row.startswith(f"cli-{name} ")]
        assert found and all(problem in row and " broken " in row for row in found), found
    assert sum(row.startswith("cli-twice ") for row in rows) == 2
    (sound,) = (row for row in rows if row.startswith("cli-sound "))
    assert "experimental" in sound and "broken" not in sound
    assert "cli-sound 1.0" in python(code, "architectures", "cli-sound", site=tmp_path).stdout


def test_no_architecture(tmp_path: Path) -> None:
    code = (
        "from atomtrain.contract import catalog\n"
        "catalog.entry_points = lambda group: ()\n"
        "from atomtrain.cli.app import main; main()"
    )
    assert "pip install atomtrain-soap-bpnn" in python(code, "architectures").stdout
