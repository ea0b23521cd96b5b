"""Files as codes write them, read without dpdata, and the table of ``docs/data.md`` on them."""

from __future__ import annotations

from pathlib import Path

import ase
import pytest
from helpers.code_files import CODES, CodeFile, agrees, pinned, table

from atomtrain.data import Files
from atomtrain.errors import DataError

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
    assert ase.__version__ == pinned()["ase"]


PATHS = [
    one
    for one in CODES
    if one.reader and one.format not in ("openmx/md", "qe/cp/traj", "orca/spout")
]
"""not: names that several files begin with, and what ASE reads, too"""


@pytest.mark.parametrize("one", PATHS, ids=lambda one: one.format)
def test_folders_of_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: CodeFile) -> None:
    """What only dpdata reads is refused with the way to read it, without the package too."""
    monkeypatch.chdir(tmp_path)
    path = one.write()
    with pytest.raises(DataError, match="reader: dpdata") as error:
        Files().structures(path, None, "here")
    assert one.code.split()[0].lower().rstrip("+") in str(error.value).lower()
