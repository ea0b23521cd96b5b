"""What holds the repository together: which warnings are errors."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
    folders = ("core", "plugins", "tests")
    ours = {
        name
        for name, module in list(sys.modules.items())
        for file in [Path(getattr(module, "__file__", None) or "/")]
        if any(file.is_relative_to(ROOT / folder) for folder in folders)
        and file != ROOT / "conftest.py"
    }
    assert ours
    assert [name for name in sorted(ours) if not raised(name)] == []
