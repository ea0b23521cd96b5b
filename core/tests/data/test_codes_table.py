"""Files as codes write them, read without dpdata, and the table of ``docs/data.md`` on them."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest
from helpers.code_files import CODES, CodeFile, abinit, agrees, pinned, table

from atomtrain.data import Files, Frame
from atomtrain.data.readers import Frames, flaws
from atomtrain.data.readers.whole import Incomplete
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


def test_cells_of_abinit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without R(1) the cell is acell times rprim in bohr; one that changes is not read."""
    monkeypatch.chdir(tmp_path)
    path = Path(abinit())
    text = path.read_text()
    path.write_text("\n".join(line for line in text.splitlines() if " R(" not in line))
    (frame,) = Files().structures(str(path), None, "here").frames
    np.testing.assert_allclose(frame.cell, np.diag([5, 5, 5]), rtol=1e-7)
    path.write_text(text.replace("  natom ", "  optcell  2\n  natom "))
    with pytest.raises(DataError, match="changing cell"):
        Files().structures(str(path), None, "here")


def test_json_of_pymatgen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text(
        '{"@module": "pymatgen.core.structure", "@class": "Structure", "sites": []}'
    )
    with pytest.raises(DataError, match="is an output of pymatgen, which ASE does not read"):
        Files().structures("a.json", None, "here")


def test_cells_of_onetep() -> None:
    """ASE makes one of ones of a block in lower case."""

    def read(text: bytes) -> Frames:
        made = Frames(
            [Frame(np.array([6]), np.zeros((1, 3)), np.ones((3, 3)), np.zeros(3, dtype=bool))]
        )
        (remedy,) = flaws.KNOWN["onetep-out"].remedies
        remedy(made, text, "a.out")
        return made

    text = b"%block lattice_cart\n10.0 0 0\n0 10.0 0\n0 0 10.0\n%endblock lattice_cart\n"
    (frame,) = read(text)
    np.testing.assert_allclose(frame.cell, np.eye(3) * 5.29177211, rtol=1e-7)
    assert frame.pbc.all()
    (frame,) = read(text.replace(b"cart\n10", b"cart\nang\n10"))
    np.testing.assert_allclose(frame.cell, np.eye(3) * 10)
    with pytest.raises(Incomplete, match="lattice_cart"):
        read(b"nothing")


@pytest.mark.parametrize(
    ("head", "code"),
    [("  www.bigdft.org", "BigDFT"), ("  (CHARMM) - Free Version", "CHARMM"),
     (" PROGRAM CPMD STARTED AT: ", "CPMD"), (" This copy of MOLCAS is licensed", "Molcas")],
)  # fmt: skip
def test_codes_that_nothing_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.out").write_text(f"\n{head}\n")
    with pytest.raises(DataError, match=f"is an output of {code}"):
        Files().structures("a.out", None, "here")
