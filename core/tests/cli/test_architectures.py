"""``atomtrain architectures``: what is installed, and what is wrong with what is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.installing import good, install
from helpers.processes import python
from typer.testing import CliRunner

from atomtrain.cli.app import app


def test_architectures(tmp_path: Path) -> None:
    install(tmp_path, "cli-good", good("cli-good"))
    install(tmp_path, "cli-broken", "import no_such_module")
    code = "from atomtrain.cli.app import main; main()"
    listed = python(code, "architectures", site=tmp_path).stdout
    assert "cli-good" in listed and "experimental" in listed
    assert "cli-broken" in listed and "no_such_module" in listed
    shown = python(code, "architectures", "cli-good", site=tmp_path).stdout
    assert "cli-good 1.0, experimental" in shown and "architecture.model" in shown


MARKED = """
from typing import Annotated
from pathlib import Path
from pydantic import Field
from atomtrain.options import Section

class Layer(Section):
    width: int = 8
    '''Width of [/layer].'''

class Hypers(Section):
    layers: dict[str, Layer] = {"first": Layer()}
    '''Layers by name.'''
    more: list[Layer] | None = None
    '''Further ones.'''
    table: Path = Path("a.txt")
    '''A file, :fire: and all.'''
    long: list[dict[str, object]] = [{"name": "a part of a name", "sizes": (64, 64)}] * 2
    '''One after the other.'''
"""


def test_every_section_is_shown_and_texts_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = good("cli-marked").replace(
        "    from atomtrain.options import Section\n    return Section", "    return Hypers"
    )
    source = source.replace(
        'summary="s"', 'summary="per [/atom] :key:", description="[bold]all[/bold] [/]"'
    )
    install(tmp_path, "cli-marked", MARKED + source.replace("trainer_hypers=hypers, ", ""))
    monkeypatch.syspath_prepend(str(tmp_path))
    done = CliRunner().invoke(app, ["architectures", "cli-marked"])
    assert done.exit_code == 0, done.output
    assert "experimental): per [/atom] :key:\n[bold]all[/bold] [/]\n" in done.stdout
    model, training = done.stdout.partition("architecture.model\n")[2].split(
        "\narchitecture.training\n"
    )
    assert model.splitlines() == [
        "  layers: {first: {width: 8}}  Layers by name.",
        "    <name>:",
        "      width: 8  Width of [/layer].",
        "  more: null  Further ones.",
        "    width: 8  Width of [/layer].",
        "  table: a.txt  A file, :fire: and all.",
        "  long:  One after the other.",
        "    - name: a part of a name",
        "      sizes: [64, 64]",
        "    - name: a part of a name",
        "      sizes: [64, 64]",
    ]
    assert (
        "  finetune: null  Start from another training's weights.\n    read_from: (required)  Path of"
        in training
    )
    assert training.count("    gradients: {}") == 1  # losses inside a loss are not gone into
    listed = CliRunner().invoke(app, ["architectures"], env={"COLUMNS": "200"})
    assert "per [/atom] :key:" in listed.stdout, listed.output


BROKEN = {
    "import": ("import no_such_module", "cannot be imported: ModuleNotFoundError"),
    "empty": ("", "does not answer the hook describe_architecture"),
    "unbuilt": (
        good("cli-unbuilt").replace("@hookimpl\ndef build_model", "def build_model"),
        "'build_model' is a hook but lacks @hookimpl",
    ),
    "misspelt": (
        good("cli-misspelt") + "\n@hookimpl\ndef bild_model(hypers):\n    return 1\n",
        "there is no hook 'bild_model'; did you mean 'build_model'?",
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
