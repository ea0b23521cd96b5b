"""Who may import whom: the contracts in .importlinter hold, and would notice; nobody takes private names."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.processes import environment

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path.relative_to(ROOT) for path in [ROOT / "core/src", *ROOT.glob("plugins/*/src")]
)
DISTRIBUTIONS = ("core", *(f"plugins/{path.parts[1]}" for path in SOURCES[1:]))


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of a copy of the sources; nothing of them is imported."""
    code = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, capture_output=True, text=True,
        env=environment(*(folder / source for source in SOURCES)),
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources and of the contracts."""
    pytest.importorskip("importlinter")
    for source in SOURCES:
        shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("core/src/atomtrain/data/splits.py", "from atomtrain.runs import plan",
         "atomtrain.data is not allowed to import atomtrain.runs"),
        ("core/src/atomtrain/contract/catalog.py", "import atomtrain.options",
         "atomtrain.contract is not allowed to import atomtrain.options"),
        ("plugins/soap-bpnn/src/atomtrain_soap_bpnn/plugin.py", "from atomtrain import api",
         "atomtrain_soap_bpnn is not allowed to import atomtrain.api"),
        ("plugins/density/src/atomtrain_density/pairs.py", "import atomtrain_soap_bpnn.model",
         "atomtrain_density is not allowed to import atomtrain_soap_bpnn"),
        ("plugins/density/src/atomtrain_density/radial.py", "import atomtrain_density.closed",
         "atomtrain_density.radial is not allowed to import atomtrain_density.closed"),
        ("plugins/testing/src/atomtrain_testing/golden.py", "from atomtrain.cli import app",
         "atomtrain_testing is not allowed to import atomtrain.cli"),
    ],
)  # fmt: skip
def test_one_forbidden_import_in_a_function_breaks_them(
    copy: Path, file: str, line: str, message: str
) -> None:
    with open(copy / file, "a", encoding="utf-8") as source:
        source.write(f"\n\ndef added():\n    {line}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert message in " ".join(done.stdout.split())


def imported(file: Path) -> Iterator[str]:
    """What a file imports, by its whole name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_no_distribution_imports_private_names_of_another(distribution: str) -> None:
    (own,) = (path.name for path in (ROOT / distribution / "src").iterdir() if path.is_dir())
    found = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in (ROOT / distribution / "src").rglob("*.py")
        if "project" not in file.parts  # a template of Python
        for name in imported(file)
        if name.startswith("atomtrain") and name.partition(".")[0] != own and private(name)
    ]
    assert found == []


def test_no_test_imports_private_names() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {name}"
        for folder in ("tests", "core/tests", *(f"{d}/tests" for d in DISTRIBUTIONS[1:]))
        for file in (ROOT / folder).rglob("*.py")
        for name in imported(file)
        if name.startswith("atomtrain") and private(name)
    ]
    assert found == []


def test_no_function_of_the_core_is_longer_than_a_page() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{file.relative_to(ROOT)}: {node.name}"
        for file in (ROOT / "core/src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, kinds) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert found == []
