"""MTP configurations, FitSNAP JSON, npz of rMD17 and sGDML: values, units, signs, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomtrain.data import Files
from atomtrain.data.readers import Account, Frames, Reading
from atomtrain.errors import DataError

KCAL_PER_MOL = 0.0433641043
BAR = 6.2415091e-7

MTP = """\
BEGIN_CFG
 Size
    2
 Supercell
         3.000000      0.000000      0.000000
         0.000000      3.100000      0.000000
         0.500000      0.000000      3.200000
 AtomData:  id type       cartes_x      cartes_y      cartes_z           fx          fy          fz
             2    0       1.500000      1.600000      1.700000     0.100000   -0.200000    0.300000
             1    1       0.000000      0.100000      0.200000    -0.100000    0.200000   -0.300000
 Energy
       -7.250000000000
 PlusStress:  xx          yy          zz          yz          xz          xy
     0.60000     0.50000     0.40000     0.03000     0.02000     0.01000
 Feature   EFS_by       VASP
END_CFG

BEGIN_CFG
 Size
    1
 AtomData:  id type       cartes_x      cartes_y      cartes_z
             1    1       0.000000      0.000000      0.000000
 Energy
       -3.5
END_CFG
"""


def opened(name: str, **reading: Any) -> tuple[Frames, Account]:
    file = Files().structures(name, None, "here", Reading(**reading))
    assert file.account is not None
    return file.frames, file.account  # type: ignore[return-value]


def problem(name: str, **reading: Any) -> str:
    with pytest.raises(DataError) as error:
        opened(name, **reading)
    return str(error.value)


TYPES = ((0, 29), (1, 28))


def test_mtp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Atoms by their id, elements by the options, the virial as MLIP has it, clusters as such."""
    monkeypatch.chdir(tmp_path)
    Path("a.cfg").write_text(MTP)
    assert "types: {0: ..., 1: ...}" in problem("a.cfg")
    (crystal, cluster), account = opened("a.cfg", types=TYPES)
    assert crystal.numbers.tolist() == [28, 29]
    np.testing.assert_allclose(crystal.positions[0], [0, 0.1, 0.2])
    np.testing.assert_allclose(crystal.find("forces")[0], [-0.1, 0.2, -0.3])
    np.testing.assert_allclose(crystal.find("virial"), [0.6, 0.5, 0.4, 0.03, 0.02, 0.01])
    assert crystal.find("energy") == -7.25 and crystal.find("EFS_by") == "VASP"
    assert crystal.pbc.all() and crystal.cell[2, 0] == 0.5
    assert not cluster.pbc.any() and cluster.find("forces") is None
    assert (account.format, account.announced) == ("mtp-cfg", 2)
    line = " ".join(lines_of("a.cfg", types=TYPES))
    assert "virial (PlusStress, eV, in 1, up to 0.6)" in line and "Cu" in line


def lines_of(name: str, **reading: Any) -> list[str]:
    files = Files()
    files.open(name, None, "here", Reading(**reading))
    return files.lines


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("1.600000      1.700000", "abc      1.700000"), "line 9, of configuration 0: there should be atom 1"),
        (("    2\n Supercell", "    3\n Supercell"), "line 11, of configuration 0: there should be atom 3 of 3"),
        (("END_CFG\n\nBEGIN", "\nBEGIN"), "line 17: BEGIN_CFG where END_CFG should come first"),
        (("-3.5\nEND_CFG", "-3.5"), "is cut off: the configuration that begins on line 18"),
        (("PlusStress:", "Stress:"), "line 13, of configuration 0: 'Stress:' is of an early version"),
        ((" Energy\n       -3.5", " Energie\n       -3.5"), "line 23, of configuration 1: 'Energie'"),
        (("type       cartes_x", "kind       cartes_x"), "no AtomData with a column 'type'"),
    ],
)  # fmt: skip
def test_mtp_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.cfg").write_text(MTP.replace(*change, 1))
    assert re.search(re.escape(said), problem("a.cfg", types=TYPES))


def fitsnap(**other: Any) -> dict[str, Any]:
    structure = {
        "Positions": [[0.0, 0.0, 0.0], [1.65, 1.65, 1.65]],
        "AtomTypes": ["Ta", "W"],
        "Lattice": [[3.3, 0, 0], [0, 3.3, 0], [0.1, 0, 3.3]],
        "NumAtoms": 2,
        "Energy": -20.0,
        "Forces": [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]],
        "Stress": [[4000.0, 0, 0], [0, 3000.0, 100.0], [0, 100.0, -2000.0]],
    }
    return {"Label": "bulk", "StressStyle": "bar", "Data": [structure], **other}


def write_fitsnap(data: dict[str, Any]) -> None:
    Path("a.json").write_text("# file bulk\n" + json.dumps({"Dataset": data}, indent=1))


def test_fitsnap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stress in bar, positive under compression, becomes what ASE has; units follow the words."""
    monkeypatch.chdir(tmp_path)
    write_fitsnap(fitsnap())
    (frame,), account = opened("a.json")
    assert frame.numbers.tolist() == [73, 74] and frame.pbc.all() and frame.cell[2, 0] == 0.1
    np.testing.assert_allclose(frame.find("stress")[0, 0], -4000 * BAR, rtol=1e-6)
    np.testing.assert_allclose(frame.find("stress")[1, 2], -100 * BAR, rtol=1e-6)
    assert account.quantities["stress"].unit == "eV/angstrom^3"
    assert account.quantities["energy"].note == "from electronvolt, which was assumed"
    write_fitsnap(fitsnap(EnergyStyle="hartree", PositionsStyle="bohr", LatticeStyle="bohr"))
    (frame,), _ = opened("a.json")
    np.testing.assert_allclose(frame.find("energy"), -20 * 27.2113862)
    np.testing.assert_allclose(frame.cell[0, 0], 3.3 * 0.529177211)


def test_fitsnap_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_fitsnap(fitsnap(StressStyle="bars"))
    assert "StressStyle 'bars' is not known; did you mean 'bar'" in problem("a.json")
    data = fitsnap()
    del data["Data"][0]["Positions"][1]
    write_fitsnap(data)
    assert "structure 0 does not fit together" in problem("a.json")
    data = fitsnap()
    del data["Data"][0]["Lattice"]
    write_fitsnap(data)
    assert "structure 0 has no Lattice" in problem("a.json")
    text = "# file bulk\n" + json.dumps({"Dataset": fitsnap()}, indent=1)
    Path("a.json").write_text(text.replace('"Energy": -20.0,', '"Energy": ,'))
    line = 1 + text[: text.index(chr(34) + "Energy")].count("\n")
    assert f"line {line} is not JSON" in problem("a.json")


MOLECULE = {
    "numbers": np.array([8, 1, 1]),
    "positions": np.array([[[0.0, 0, 0], [0.9, 0, 0], [0, 0.9, 0]], [[0.1, 0, 0], [1, 0, 0], [0, 1, 0]]]),
    "energies": np.array([-47000.0, -46990.0]),
    "forces": np.full((2, 3, 3), 10.0),
}  # fmt: skip


def write_npz(names: dict[str, str], **more: Any) -> None:
    arrays = {new: MOLECULE[old] for new, old in names.items()}
    np.savez("a.npz", **arrays, **more)


RMD17 = {
    "nuclear_charges": "numbers",
    "coords": "positions",
    "energies": "energies",
    "forces": "forces",
}
SGDML = {"z": "numbers", "R": "positions", "E": "energies", "F": "forces"}


def test_rmd17(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kcal/mol becomes eV, which the account says."""
    monkeypatch.chdir(tmp_path)
    write_npz(RMD17, old_energies=np.zeros(2), charges=np.ones((2, 3)))
    frames, account = opened("a.npz")
    np.testing.assert_allclose(frames[0].find("energy"), -47000 * KCAL_PER_MOL)
    np.testing.assert_allclose(frames[1].find("forces"), 10 * KCAL_PER_MOL)
    assert not frames[0].pbc.any() and frames[0].find("charges").shape == (3,)
    assert account.quantities["energy"].note == "from kcal/mol, the unit of this layout"
    assert account.quantities["forces"].unit == "eV/angstrom"


def test_sgdml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units that the file states are believed; where it states none, the options say."""
    monkeypatch.chdir(tmp_path)
    write_npz(
        SGDML,
        e_unit="Hartree",
        r_unit="bohr",
        lattice=np.array([[9.0, 1, 0], [0, 9, 0], [0, 0, 9]]),
    )
    (frame, _), account = opened("a.npz")
    np.testing.assert_allclose(frame.find("energy"), -47000 * 27.2113862)
    np.testing.assert_allclose(frame.find("forces"), 10 * 27.2113862 / 0.529177211)
    np.testing.assert_allclose(
        frame.cell[1], [0.529177211, 9 * 0.529177211, 0]
    )  # columns in the file
    assert frame.pbc.all() and account.length_unit == "angstrom"
    write_npz(SGDML)
    (frame, _), account = opened("a.npz")
    assert frame.find("energy") == -47000 and account.length_unit == ""
    assert account.quantities["energy"].unit == "" and "kcal/mol" in account.usual_units


def test_npz_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_npz(SGDML, e_unit="Rydbergs")
    assert "its unit e_unit is 'Rydbergs', which is not known" in problem("a.npz")
    write_npz({"coords": "positions", "energies": "energies"})
    assert "has the arrays coords, energies, a layout that is not known" in problem("a.npz")
    np.savez("a.npz", z=np.ones((2, 3), dtype=int), R=MOLECULE["positions"])
    assert "molecules of several kinds go into files of their own" in problem("a.npz")
    np.savez("a.npz", z=MOLECULE["numbers"], R=np.array([{}, {}], dtype=object))
    assert "arrays of Python objects" in problem("a.npz")
    write_npz({**SGDML, "F": "energies"})
    assert "F has shape [2], but should have [2, 3, 3]" in problem("a.npz")
    content = Path("a.npz").read_bytes()
    Path("a.npz").write_bytes(content[: len(content) // 2])
    assert "cut off or damaged" in problem("a.npz")


def test_lists_of_own_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of FitSNAP have one structure each: they are given by wildcards."""
    monkeypatch.chdir(tmp_path)
    for k in range(3):
        write_fitsnap(fitsnap())
        Path("a.json").rename(f"{k}.json")
    assert len(Files().structures("*.json", None, "here").frames) == 3
