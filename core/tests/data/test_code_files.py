"""Files as codes write them, read without dpdata, and the table of ``docs/data.md`` on them."""

from __future__ import annotations

from pathlib import Path

import ase
import pytest
from helpers.code_files import CODES, CodeFile, agrees, pinned, table

HERE = [one for one in CODES if one.reader is None]


@pytest.mark.parametrize("one", HERE, ids=lambda one: f"{one.code} {one.file}")
def test_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: CodeFile) -> None:
    monkeypatch.chdir(tmp_path)
    agrees(one)


def test_the_table() -> None:
    """``python -m helpers.code_files`` prints it, to be copied."""
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    assert table(pinned()) in page


def test_the_versions_are_those_of_the_tests() -> None:
    if ase.__version__ != pinned()["ase"]:
        pytest.skip("not the versions of constraints.txt")
