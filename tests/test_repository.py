"""What holds the repository together: versions, lists that have to agree, which warnings are errors."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECTS = sorted([ROOT / "core", *(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))])


def setting(project: Path, name: str) -> str:
    """The value of the first line ``name = "value"`` of a ``pyproject.toml``."""
    found = re.search(rf'^{name} = "(.*)"$', (project / "pyproject.toml").read_text(), re.MULTILINE)
    assert found, (project, name)
    return found[1]


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_a_version_has_one_place(project: Path) -> None:
    assert 'dynamic = ["version"]' in (project / "pyproject.toml").read_text()
    source = (project / setting(project, "path")).read_text()
    distribution = setting(project, "name")
    apart = re.search(r"^APART = \((.*?)\)", (ROOT / "noxfile.py").read_text(), re.M | re.S)
    assert apart
    if f'"./{project.relative_to(ROOT)}"' in apart[1]:  # not installed beside the others
        version = metadata.version("atomtrain")
        assert f'__version__ = "{version}"' in source
        return
    version = metadata.version(distribution)
    assert f'__version__ = "{version}"' in source
    assert importlib.import_module(distribution.replace("-", "_")).__version__ == version


def test_nox_installs_every_distribution() -> None:
    named = re.findall(r'^    "\./([\w/-]+)(?:\[.*)?",$', (ROOT / "noxfile.py").read_text(), re.M)
    assert sorted(named) == [str(project.relative_to(ROOT)) for project in PROJECTS]


def test_every_session_of_nox_is_one_and_is_told_of() -> None:
    source = (ROOT / "noxfile.py").read_text()
    sessions = re.findall(r"^@nox\.session\(.*\)\ndef (\w+)", source, re.M)
    assert sessions == re.findall(r"^def (\w+)\(session", source, re.M)
    told = re.findall(r"^\| `(\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert sorted(told) == sorted(set(sessions) - {"dev"})


def test_pre_commit_has_the_tools_of_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {r.name: r for line in lines if line[:1] != "#" for r in [Requirement(line)]}
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    used = [Requirement(text) for hook in hooks for text in hook["additional_dependencies"]]
    ruffs = [requirement for requirement in used if requirement.name == "ruff"]
    assert ruffs and all(r.specifier == pinned["ruff"].specifier for r in ruffs)


def raised(module: str) -> bool:
    """Whether a warning that is attributed to this module is an error here."""
    with warnings.catch_warnings(record=True):
        try:
            warnings.warn_explicit("tried", DeprecationWarning, "tried.py", 1, module=module)
        except DeprecationWarning:
            return True
    return False


@pytest.mark.parametrize(
    "module", ["atomtrain", "atomtrain.data.store", "atomtrain_soap_bpnn.model", __name__]
)
def test_warnings_of_our_code_are_errors(module: str) -> None:
    assert raised(module)


@pytest.mark.parametrize("module", ["ase.atoms", "numpy", "torch.jit._script", "pydantic.main"])
def test_warnings_of_other_packages_are_not(module: str) -> None:
    assert not raised(module)


def test_warnings_of_all_test_modules_and_helpers_are_errors() -> None:
    ours = {
        name
        for name, module in list(sys.modules.items())
        for file in [Path(getattr(module, "__file__", None) or "/")]
        if any(file.is_relative_to(ROOT / folder) for folder in ("core", "plugins", "tests"))
    }
    assert ours
    assert [name for name in sorted(ours) if not raised(name)] == []
