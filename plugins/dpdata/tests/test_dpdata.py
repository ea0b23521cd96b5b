"""What dpdata reads becomes frames; what it gets wrong is put right, or refused with a sentence."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import code_files
from helpers.code_files import CODES, CodeFile, agrees, pinned

from atomtrain.data import Files
from atomtrain.data.readers import Reading
from atomtrain.data.readers.base import DataFile
from atomtrain.errors import DataError

dpdata = pytest.importorskip("dpdata")
THERE = [one for one in CODES if one.reader == "dpdata"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(path: str, **reading: Any) -> DataFile:
    return Files().structures(path, "dpdata", "here", Reading(**reading))


def problem(path: str, **reading: Any) -> str:
    with pytest.raises(DataError) as error:
        read(path, **reading)
    return str(error.value)


def change(path: str, old: str, new: str, count: int = -1) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, count))


@pytest.mark.parametrize("one", THERE, ids=lambda one: f"{one.code} {one.file}")
def test_codes(one: CodeFile) -> None:
    """Each format is told by the look of it, and its numbers are right."""
    agrees(one)


def test_version() -> None:
    assert dpdata.__version__ == pinned()["dpdata"]


def test_deepmd() -> None:
    """Sets one after the other, with arrays that dpdata does not know."""
    frames = read(code_files.deepmd()).frames
    assert [float(frame.find("energy")) for frame in frames] == [-10, -11, -12]
    np.testing.assert_allclose(frames[2].find("dipole"), [0.1, 0.2, 0.3])
    assert frames[0].find("atom_ener").shape == (3, 1)


def test_deepmd_types() -> None:
    """Without type_map.raw there are no elements."""
    path = code_files.deepmd(names=False)
    assert "types: {0: ..., 1: ...}" in problem(path)
    frames = read(path, types=((0, 8), (1, 1))).frames
    assert frames[0].numbers.tolist() == [8, 1, 1]


def test_deepmd_without_labels_and_cells() -> None:
    path = code_files.deepmd()
    for name in ("energy", "force", "virial", "box"):
        for file in Path(path).glob(f"set.*/{name}.npy"):
            file.unlink()
    assert "(there is no" in problem(path) and "box.npy" in problem(path)
    Path(path, "nopbc").touch()
    frames = read(path).frames
    assert not frames[0].pbc.any() and frames[0].find("energy") is None


def test_deepmd_that_does_not_fit() -> None:
    path = code_files.deepmd()
    np.save(Path(path, "set.001/force.npy"), np.zeros((0, 9)))
    assert "it has 3 structures, but forces of 2" in problem(path)
    Path(path, "type_map.raw").write_text("OW\nHW\n")
    assert "atoms called OW, HW, which are no elements" in problem(path)


def test_hdf5_groups() -> None:
    path = code_files.deepmd_hdf5()
    assert [float(frame.find("energy")) for frame in read(path).frames] == [-10, -11]
    assert [float(frame.find("energy")) for frame in read(f"{path}#b").frames] == [-11]
    assert "cannot be read by dpdata: it should be an HDF5 file" in problem(f"{path}#c")


def test_abacus_relaxation_without_some_forces() -> None:
    path = code_files.abacus_relax()
    log = Path(path, "OUT.ABACUS/running_relax.log")
    log.write_text(
        log.read_text().replace("final etot is -11.0 eV", "final etot is -11.0 eV\n" * 3)
    )
    assert "sets of forces, which dpdata would pair by their order" in problem(path)


def test_deepmd_folders_in_a_list() -> None:
    paths = [code_files.deepmd("one"), code_files.deepmd("two")]
    assert len(Files().structures(paths, "dpdata", "here").frames) == 6


def test_abacus_that_did_not_converge() -> None:
    path = code_files.abacus_md()
    log = "md/OUT.ABACUS/running_md.log"
    change(log, " final etot is -11.0 eV", " !! convergence has not been achieved @_@")
    assert "has 1 steps whose electrons did not converge" in problem(path)
    Path(log).unlink()
    assert "needs the file 'md/OUT.ABACUS/running_md.log'" in problem(path)


def test_cp2k_that_did_not_converge() -> None:
    path = code_files.cp2k_output()
    change(path, "SCF run converged", "SCF run NOT converged")
    assert "did not converge" in problem(path)
    path = code_files.cp2k_dynamics()
    change("dynamics/cp2k.log", "*** SCF run converged in", "*** SCF run NOT converged", 1)
    assert "1 of 2 structures did not converge (frame 0)" in problem(path)
    assert len(read(path, unconverged="drop").frames) == 1


def test_cp2k_cells_and_elements() -> None:
    """Neither turned by dpdata nor in single precision; kinds are no elements."""
    path = code_files.cp2k_dynamics()
    for frame in read(path).frames:
        np.testing.assert_array_equal(frame.cell, [[3, 4, 0], [-4, 3, 0], [0, 0, 5]])
    change("dynamics/water-pos-1.xyz", "  O ", "  S ")
    assert "other elements in 'water-pos-1.xyz' (S H H" in problem(path)


def test_several_calculations_in_a_file() -> None:
    """dpdata mixes parts of them, or takes the last one without a word."""
    assert "has 2 calculations ('FINAL SINGLE POINT ENERGY')" in problem(code_files.orca(times=2))
    path = code_files.cp2k_output()
    Path(path).write_text(Path(path).read_text() * 2)
    assert "read dynamics as cp2k/aimd_output" in problem(path)
    path = code_files.psi4()
    change(path, "## Total Gradient", "## Gradient")
    assert "has no line '## Total Gradient'" in problem(path)


def test_orca_that_did_not_converge() -> None:
    path = code_files.orca()
    change(
        path, "FINAL SINGLE", "          !!! SCF NOT CONVERGED AFTER 125 CYCLES !!!\nFINAL SINGLE"
    )
    assert "did not converge" in problem(path)
    assert len(read(path, unconverged="keep").frames) == 1


def test_psi4_correlated() -> None:
    path = code_files.psi4()
    change(path, "    Total Energy", "    DF-MP2 Energies\n    Total Energy")
    assert "has energies of MP2" in problem(path)


def test_siesta() -> None:
    """The virial has dpdata's sign turned; forces are of the free energy."""
    frame = read(code_files.siesta(free=-10.25)).frames[0]
    assert frame.find("energy") == -10 and frame.find("free_energy") == -10.25
    assert frame.find("virial")[0, 0] > 0  # SIESTA's own pressure is positive
    change("siesta.out", "siesta: E_KS", "SCF_NOT_CONV\nsiesta: E_KS")
    assert "did not converge" in problem("siesta.out")


def test_pwmat_that_did_not_converge() -> None:
    """dpdata leaves such steps out: they are found and counted."""
    path = code_files.pwmat()
    change(path, "SCF =    8", "SCF =   40", 1)
    assert "1 of 2 structures did not converge (frame 0)" in problem(path)
    left = read(path, unconverged="drop").frames
    assert [float(frame.find("energy")) for frame in left] == [-11]


def test_openmx_that_did_not_converge() -> None:
    path = code_files.openmx()
    change("water.md", "scf_conv=1", "scf_conv=0", 1)
    assert "1 of 2 structures did not converge (frame 0)" in problem(path)


def test_openmx_that_was_run_again() -> None:
    path = code_files.openmx()
    Path("water.md").write_text(Path("water.md").read_text() * 2)
    account = read(path).account
    assert account is not None and "begins again 1 times" in account.warnings[0]


def test_cp2k_without_forces_in_the_log() -> None:
    path = code_files.cp2k_dynamics()
    change("dynamics/cp2k.log", "ATOMIC FORCES in", "ATOMIC FORCES OF")
    assert "has no forces in 'cp2k.log'" in problem(path)
    Path("dynamics/cp2k.log").unlink()
    assert "needs the log of CP2K" in problem(path, format="cp2k/aimd_output")


def test_dftb_crystals() -> None:
    assert "is periodic, and dpdata loses the cell" in problem(code_files.dftb(mode="S"))


def test_cp_cells() -> None:
    path = code_files.cp()
    change("water.in", "ibrav = 0", "ibrav = 4")
    assert read(path).frames[0].pbc.all()
    Path("water.cel").unlink()
    assert "has ibrav = 4" in problem(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("n2p2", "takes every such file for hartree and bohr"),
        ("vasp/xml", "ASE's vasp-xml is read"),
        ("lammps/dump", "give types in the options"),
        ("gro", "names of atoms for elements"),
        ("extxyz", "stress in any unit for eV/A^3"),
        ("siesta/outpt", "did you mean 'siesta/output'?"),
    ],
)
def test_formats_that_are_not_read(name: str, said: str) -> None:
    Path("file").write_text("text")
    assert said in problem("file", format=name)


def test_what_is_no_format() -> None:
    Path("file").write_text("text")
    assert "could be told by; say which with format: deepmd/npy" in problem("file")
    assert "there is no such file or folder" in problem("missing")
    assert "'file' (openmx/md)" in problem("file", format="openmx/md")
    text = problem("file", format="pwmat/movement")
    assert "cannot be read by dpdata: it should be a file MOVEMENT" in text
    with (
        warnings.catch_warnings()
    ):  # dpdata leaves files open where it fails: not for another test to find
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
