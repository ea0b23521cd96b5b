"""``atomtrain new``: what it asks, what it refuses, what it leaves."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from atomtrain.errors import OutputError, PluginError
from atomtrain_template import command
from atomtrain_template.names import LEVELS, check_name, class_name
from atomtrain_template.render import TEMPLATE, render

PLUGIN = Path(__file__).parents[1]


def test_no_input_takes_the_defaults(tmp_path: Path) -> None:
    done = CliRunner().invoke(command.app, ["my-arch", "--no-input", "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    project = tmp_path / "atomtrain-my-arch"
    assert f"written: {project}" in done.output
    model = (project / "src" / "atomtrain_my_arch" / "model.py").read_text()
    assert "class MyArch(FeatureModel)" in model
    assert "BSD 3-Clause" in (project / "LICENSE").read_text()


def test_it_asks_for_what_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "somebody_there", lambda: True)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):  # git knows nobody here
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.chdir(tmp_path)
    answers = "nonsense\n2\nAda Example\n\nMIT\n"
    done = CliRunner().invoke(command.app, ["my-arch", "-o", str(tmp_path)], input=answers)
    assert done.exit_code == 0, done.output
    for level, summary in LEVELS.items():
        assert level in done.output and summary in done.output
    assert "one of: features, potential" in done.output  # what 'nonsense' is answered
    project = tmp_path / "atomtrain-my-arch"
    assert "(PotentialModel)" in (project / "src" / "atomtrain_my_arch" / "model.py").read_text()
    assert (
        'name = "Ada Example", email = "you@example.org"'
        in (project / "pyproject.toml").read_text()
    )
    assert (project / "LICENSE").read_text().startswith("MIT License")


def test_every_answer_as_an_option(tmp_path: Path) -> None:
    given = ["x", "--level", "trainer", "--author", "B", "--email", "b@c", "--license"]
    done = CliRunner().invoke(command.app, [*given, "Apache-2.0", "-o", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    project = tmp_path / "new" / "atomtrain-x"
    assert "Apache License" in (project / "LICENSE").read_text()
    assert (project / "src" / "atomtrain_x" / "trainer.py").exists()


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "atomtrain-mine").mkdir()
    with pytest.raises(OutputError, match="atomtrain-mine' exists already; remove it or choose"):
        render("mine", output=tmp_path)
    assert not list((tmp_path / "atomtrain-mine").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make"):
        render("mine", output=tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My_Arch", "such as 'my-arch'"),
        ("3d-net", "a letter first, such as 'd-net'"),
        ("a--b", "such as 'a-b'"),
        ("a" * 31, "at most 30 small letters"),
        ("", "cannot be the name of an architecture"),
        ("atomtrain-x", "leave out 'atomtrain'"),
        ("soap-bpnn", "already the name of an installed architecture \\(atomtrain-soap-bpnn"),
    ],
)
def test_bad_names(name: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        check_name(name)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"level": "all"}, "there is no level 'all'; choose one of features, potential"),
        ({"license": "mine"}, "there is no license 'mine'; choose one of BSD-3-Clause"),
        ({"author": 'A "B"'}, "the author .* must be one line"),
        ({"email": ""}, "the email '' must be one line"),
    ],
)
def test_bad_answers(tmp_path: Path, answers: dict[str, str], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        render("mine", output=tmp_path, **answers)
    assert not list(tmp_path.iterdir())


def test_names_of_classes() -> None:
    assert class_name("my-arch-2") == "MyArch2"
    assert class_name("feature-model") == "FeatureModelNetwork"  # the base class has this name


def test_no_class_is_called_as_what_its_module_imports(projects: dict[str, Path]) -> None:
    for level, project in projects.items():
        tree = ast.parse((project / "src" / f"atomtrain_own_{level}" / "model.py").read_text())
        names = [a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names]
        names += [n.name for n in tree.body if isinstance(n, ast.ClassDef)]
        for name in {n for n in names if n[0].isupper()} - {f"Own{level.capitalize()}"}:
            as_project = re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower()
            assert class_name(as_project) != name


def test_the_wheel_brings_the_whole_template(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "--target", str(tmp_path), str(PLUGIN)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    def files(folder: Path) -> set[str]:
        return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
                and p.suffix != ".pyc"}  # fmt: skip

    assert files(tmp_path / "atomtrain_template" / "project") == files(TEMPLATE)
    points = next(tmp_path.glob("*.dist-info")) / "entry_points.txt"
    assert "new = atomtrain_template.command:app" in points.read_text()
