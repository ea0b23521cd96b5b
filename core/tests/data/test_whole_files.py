"""Files are read whole and rightly, or it is said what is the matter and what to do."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from helpers.frames import labelled

from atomtrain.data import Files, Frame
from atomtrain.errors import DataError

LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


def frames(n: int = 4) -> list[Atoms]:
    """Silicon of 3, 4, ... atoms, the first coordinate of which is the number of the frame."""
    made = []
    for k in range(n):
        atoms = labelled(k, n=3 + k)
        atoms.positions[0, 0] = atoms.calc.atoms.positions[0, 0] = k
        made.append(atoms)
    return made


def text(n: int = 4) -> list[str]:
    """The lines of ``frames`` in extended xyz; they begin on lines 1, 6, 12, 19."""
    ase.io.write("made.xyz", frames(n), format="extxyz")
    lines = Path("made.xyz").read_text().splitlines(keepends=True)
    Path("made.xyz").unlink()
    return lines


def read(name: str) -> list[Frame]:
    return list(Files().structures(name, None, "here").frames)


def read_whole(name: str, n: int = 4) -> None:
    """All frames of ``text`` are there with the right values."""
    found = read(name)
    assert [len(frame.numbers) for frame in found] == [3 + k for k in range(n)]
    for k, frame in enumerate(found):
        assert frame.positions[0, 0] == k
        assert frame.find("energy") == k
        np.testing.assert_allclose(
            frame.find("forces"), labelled(k, n=3 + k).calc.results["forces"], atol=1e-7
        )


def refused(name: str, *said: str) -> None:
    """Reading is an error that says all of this, in this order."""
    with pytest.raises(DataError) as caught:
        read(name)
    message = str(caught.value)
    assert message.startswith(f"here: '{name}' ")
    assert re.search(".*".join(map(re.escape, said)), message), message


# -- extended xyz ----------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["\n", " \t\n", "\r\n", "\n\n\n"])
def test_blank_lines_between_frames(workplace: Path, blank: str) -> None:
    lines = text()
    for at in (18, 11, 5, 0):
        lines.insert(at, blank)
    Path("a.xyz").write_text("".join([*lines, blank]), newline="")
    read_whole("a.xyz")


def test_files_put_together(workplace: Path) -> None:
    """Also by programs that begin each with a byte order mark."""
    parts = ["".join(text()[:11]), "".join(text()[11:])]
    Path("a.xyz").write_bytes(b"".join(b"\xef\xbb\xbf" + part.encode() for part in parts))
    read_whole("a.xyz")


def test_ends_of_lines(workplace: Path) -> None:
    for name, end in (("dos.xyz", "\r\n"), ("mac.xyz", "\r")):
        Path(name).write_text("".join(text()).replace("\n", end), newline="")
        read_whole(name)
    Path("open.xyz").write_text("".join(text()).rstrip("\n"))
    read_whole("open.xyz")


def test_comments_and_frames_may_be_empty(workplace: Path) -> None:
    Path("a.xyz").write_text("1\n\nH 0 0 0\n0\n\n1\n\nH 0 0 1\n")
    assert [len(frame.numbers) for frame in read("a.xyz")] == [1, 0, 1]


def test_cell_vectors_after_the_atoms(workplace: Path) -> None:
    frame = "1\n\nH 0 0 0\nVEC1 3 0 0\nVEC2 0 4 0\nVEC3 0 0 5\n"
    Path("a.xyz").write_text(frame + "\n" + frame)
    assert [frame.cell.diagonal().tolist() for frame in read("a.xyz")] == [[3, 4, 5]] * 2


def _cut_between(lines: list[str]) -> list[str]:
    return lines[:-3]


def _cut_after_number(lines: list[str]) -> list[str]:
    return lines[:19]


def _cut_in_line(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1][:30]]


def _cut_in_number(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1][:-5]]


def _garbage(lines: list[str]) -> list[str]:
    return [*lines, "total: 4 structures\n", "bye\n"]


def _zeros(lines: list[str]) -> list[str]:
    return [*lines, "\0" * 30]


def _too_many(lines: list[str]) -> list[str]:
    return [*lines[:5], "5\n", *lines[6:]]


def _too_few(lines: list[str]) -> list[str]:
    return [*lines[:5], "3\n", *lines[6:]]


def _swallows_a_frame(lines: list[str]) -> list[str]:
    return [*lines[:5], "11\n", *lines[6:]]


def _no_new_line(lines: list[str]) -> list[str]:
    return [*lines[:4], lines[4].rstrip("\n"), *lines[5:]]


def _blank_inside(lines: list[str]) -> list[str]:
    return [*lines[:8], "\n", *lines[8:]]


def _word(lines: list[str]) -> list[str]:
    return [*lines[:8], lines[8].replace(lines[8].split()[1], "******"), *lines[9:]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _cut_between,
            ["ends in frame 3, which begins on line 19: 3 of its 6 atoms", "the 3 before"],
        ),
        (_cut_after_number, ["ends in frame 3, which begins on line 19: 0 of its 6", "Copy"]),
        (_cut_in_line, ["cut off in its last line, 26", "copy the file again"]),
        (_cut_in_number, ["cut off in its last line, 26", "copy the file again"]),
        (_garbage, ["line 27 should be a number of atoms, but is 'total: 4", "1 further lines"]),
        (_zeros, [r"line 27 should be a number of atoms, but is '\x00\x00"]),
        (_too_many, ["line 13 should", "line 6, says it has 5", "to begin on line 12; correct"]),
        (
            _too_few,
            ["line 11 should be a number", "Frame 1, which begins on line 6, says it has 3"],
        ),
        (_swallows_a_frame, ["line 12 (of frame 1", "line 6) looks like the beginning of another"]),
        (_no_new_line, ["line 6 should be a number of atoms, but is 'Lattice", "says it has 3"]),
        (_blank_inside, ["blank line, 9, among the atoms of frame 1, which begins on line 6"]),
        (_word, ["line 9 (of frame 1", "'******' of 'pos' is not a number; repair"]),
    ],
)
def test_what_is_wrong_in_xyz(
    workplace: Path, change: Callable[[list[str]], list[str]], said: list[str]
) -> None:
    Path("a.xyz").write_text("".join(change(text())))
    refused("a.xyz", *said)


@pytest.mark.parametrize("species", ["0", "Cux1", "Xx"])
def test_species_that_are_no_symbols(workplace: Path, species: str) -> None:
    Path("a.xyz").write_text(f"1\n\nH 0 0 0\n2\n\nH 0 0 0\n{species} 0 0 1\n")
    refused("a.xyz", "line 7", f"'{species}' is not a chemical symbol; write symbols")


def test_columns_that_are_missing(workplace: Path) -> None:
    Path("a.xyz").write_text("2\nProperties=species:S:1:pos:R:3:q:R:1\nH 0 0 0 1\nH 0 0 1\n")
    refused("a.xyz", "line 4", "has 4 columns, but there should be 5")


# -- encodings and packing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.xyz.gz", gzip.compress),
        ("a.XYZ.GZ", gzip.compress),
        ("a.extxyz.bz2", bz2.compress),
        ("a.xyz.xz", lzma.compress),
        ("named-wrongly.xyz", gzip.compress),
        ("unpacked-by-the-browser.xyz.gz", bytes),
        ("a@300K.xyz", bytes),
        ("a@2.XYZ", bytes),
        ("no-extension", bytes),
    ],
)
def test_names_of_xyz(workplace: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    lines = text()
    lines.insert(5, "\n")
    Path(name).write_bytes(pack("".join(lines).encode()))
    read_whole(name)


@pytest.mark.parametrize("name", ["a.xyz.gz", "a.xyz.bz2", "a.xyz.xz"])
def test_packed_files_cut_off(workplace: Path, name: str) -> None:
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[Path(name).suffix]
    Path(name).write_bytes(pack("".join(text()).encode())[:-50])
    refused(name, "is packed, and cut off or damaged; copy or download it again")


@pytest.mark.parametrize("name", ["a.xyz", "a.cif", "a.json", "a.pdb", "POSCAR"])
def test_byte_order_marks(workplace: Path, name: str) -> None:
    ase.io.write(name, bulk("Cu", cubic=True))
    Path(name).write_bytes(b"\xef\xbb\xbf" + Path(name).read_bytes())
    assert read(name)[0].numbers.tolist() == [29] * 4


def test_other_encodings(workplace: Path) -> None:
    content = "".join(text()).replace("energy=1.0", "name=Ångström energy=1.0")
    Path("a.xyz").write_text(content, encoding="utf-8")
    read_whole("a.xyz")
    Path("a.xyz").write_text(content, encoding="latin-1")
    files = Files()
    assert files.structures("a.xyz", None, "here").frames[1].find("name") == "Ångström"
    assert "'a.xyz': is not text in UTF-8 (line 7): read as Latin-1" in files.lines
    Path("a.xyz").write_text(content, encoding="utf-16")
    refused("a.xyz", "is text in UTF-16; convert it: iconv -f UTF-16")


# -- no structures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.xyz", "a.cif", "a.db", "a.traj", "a.json", "a.dat", "a"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ["is empty"]),
        (b"\n \n", ["is empty"]),
        (LFS, ["is what git-lfs keeps", "run 'git lfs pull'"]),
        (b"\n<!DOCTYPE html>\n<html>...", ["is a web page; download the file itself"]),
        (pickle.dumps({"a": 1}), ["is a Python pickle; write its structures as extended xyz"]),
        (b"PK\x03\x04rest", ["is a zip archive (.npz"]),
        (b"\x93NUMPY\x01\x00rest", ["is an array of numpy"]),
        (b"\x89HDF\r\n\x1a\nrest", ["is an HDF5 file; those of MACE", "atomtrain-databases"]),
        (bytes(16) + b"\xde\xc0\xef\xberest", ["is an LMDB file; those of", "atomtrain-databases"]),
    ],
)
def test_no_structures(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, said: list[str]
) -> None:
    monkeypatch.setattr("atomtrain.data.readers.components", lambda hook: {})  # as if none read it
    Path(name).write_bytes(content)
    refused(name, *said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("prose.xyz", b"hello\nworld\n", ["does not look like", "line 1", "'hello'", "extension"]),
        ("binary.xyz", bytes(range(1, 256)), ["does not look like (extended) xyz"]),
        ("prose.abc", b"hello\nworld\n", ["of no format", "the extension '.abc'", "convert"]),
        ("prose", b"hello\nworld\n", ["of no format that ASE knows: it has no extension"]),
        ("prose.txt", b"hello\nworld\n", ["of no format", "the extension '.txt'"]),
        ("dict.json", b'{"a": 1}', ["cannot be read: ", "'json' of ASE"]),
        ("text.db", b"hello\n" * 10, ["is not a database of ASE, or is damaged"]),
        ("a.db.gz", gzip.compress(b"SQLite format 3\0", mtime=0), ["is packed; unpack it first"]),
        ("a.traj", b"- of UlmASE-Trajectory", ["cannot be read: it is damaged or cut off"]),
    ],
)
def test_other_content(workplace: Path, name: str, content: bytes, said: list[str]) -> None:
    Path(name).write_bytes(content)
    refused(name, *said)


def test_databases_of_others_stay_as_they_are(workplace: Path) -> None:
    with sqlite3.connect("a.db") as database:
        database.execute("CREATE TABLE songs (name TEXT)")
    database.close()
    before = Path("a.db").read_bytes()
    refused("a.db", "is a database, but none of ASE (it has: songs)")
    assert Path("a.db").read_bytes() == before


def test_folders_with_names_of_databases(workplace: Path) -> None:
    """ASE takes what begins with 'mysql' for an address."""
    Path("mysql").mkdir()
    Path("mysql/a.xyz").write_text("".join(text()))
    read_whole("mysql/a.xyz")


# -- other formats with several frames -------------------------------------------------------------


def crystals(name: str) -> list[str]:
    """The lines of a file of four cubes of copper."""
    made = []
    for k in range(4):
        atoms = bulk("Cu", a=3.6 + 0.1 * k, cubic=True)
        atoms.rattle(0.05, seed=k)
        made.append(atoms)
    ase.io.write(name, made)
    return Path(name).read_text().splitlines(keepends=True)


def dump(n: int = 3) -> list[str]:
    """A dump of LAMMPS, 11 lines a frame."""
    frame = (
        "ITEM: TIMESTEP\n{}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 5\n0 5\n0 5\n"
        "ITEM: ATOMS id element x y z\n1 Si 0 0 1\n2 Si 1 1 1.5\n"
    )
    return "".join(frame.format(k) for k in range(n)).splitlines(keepends=True)


@pytest.mark.parametrize("name", ["a.cif", "a.pdb", "XDATCAR", "a.xsf"])
def test_whole_files_of_other_formats(workplace: Path, name: str) -> None:
    lines = crystals(name)
    assert [len(frame.numbers) for frame in read(name)] == [4] * 4
    Path(name).write_text("".join(lines) + "\n\n")
    assert [len(frame.numbers) for frame in read(name)] == [4] * 4


def test_cif_with_blocks_without_structures(workplace: Path) -> None:
    Path("a.cif").write_text("data_global\n_journal_year 2020\n\n" + "".join(crystals("a.cif")))
    assert len(read("a.cif")) == 4


@pytest.mark.parametrize(
    ("name", "cut", "said"),
    [
        (
            "a.cif",
            lambda lines: lines[: _last(lines, "_atom_site_fract_y")],
            "4 frames, of which 3",
        ),
        ("a.cif", lambda lines: lines[: _last(lines, "loop_")], "4 frames, of which 3 were read"),
        ("a.pdb", lambda lines: lines[:-3], "4 frames, of which 3 were read; number 3"),
        ("a.pdb", lambda lines: lines[:6] + lines[7:], "4 frames, of which 3 were read"),
        ("XDATCAR", lambda lines: lines[:-2], "cannot be read: it is damaged or cut off"),
        ("a.xsf", lambda lines: lines[:-2], "cannot be read"),
    ],
)
def test_other_formats_cut_off(
    workplace: Path, name: str, cut: Callable[[list[str]], list[str]], said: str
) -> None:
    Path(name).write_text("".join(cut(crystals(name))))
    refused(name, said)


def _last(lines: list[str], word: str) -> int:
    return max(k for k, line in enumerate(lines) if word in line)


def test_blank_lines_in_xdatcar(workplace: Path) -> None:
    """ASE fails, or stops there, as it happens."""
    lines = crystals("XDATCAR")
    for at in (12, 17):
        Path("XDATCAR").write_text("".join([*lines[:at], "\n", *lines[at:]]))
        with pytest.raises(DataError, match=r"cannot be read|4 frames, of which 1 were read"):
            read("XDATCAR")


def test_dumps_of_lammps(workplace: Path) -> None:
    lines = dump()
    Path("a.dump").write_text("".join([*lines[:11], "\n", *lines[11:]]))
    assert [len(frame.numbers) for frame in read("a.dump")] == [2, 2, 2]
    Path("a.dump").write_text("".join(lines[:-1]))
    refused("a.dump", "frame 2 (line 25) says it has 2 atoms, but 1 were read")
    Path("a.dump").write_text("".join([*lines[:21], "\n", *lines[21:]]))
    refused("a.dump", "frame 1 (line 14) says it has 2 atoms, but 1 were read")
    Path("a.dump").write_text("".join(lines[:-5]))
    refused("a.dump", "cannot be read")


@pytest.mark.parametrize("direct", [True, False])
def test_several_poscars_in_one(workplace: Path, direct: bool) -> None:
    atoms = bulk("Cu", cubic=True)
    ase.io.write("POSCAR", atoms, format="vasp", direct=direct)
    content = Path("POSCAR").read_text()
    Path("POSCAR").write_text(content + "Cartesian\n" + "0.0 0.0 0.1\n" * 4)  # velocities
    assert len(read("POSCAR")) == 1
    Path("POSCAR").write_text(content * 2)
    refused("POSCAR", "2 frames, of which 1 were read; number 1, counted from 0, is on line 19")


def test_only_the_first_molecule_of_a_sdf(workplace: Path) -> None:
    one = "H\n  made\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0       0.0       0.0    H   0\n"
    Path("a.sdf").write_text(one + "M  END\n$$$$\n")
    assert len(read("a.sdf")) == 1
    Path("a.sdf").write_text((one + "M  END\n$$$$\n") * 2)
    refused("a.sdf", "2 frames, of which 1 were read")


@pytest.mark.parametrize("name", ["a.traj", "a.db", "a.json"])
def test_files_of_ase_cut_off(workplace: Path, name: str) -> None:
    ase.io.write(name, frames())
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[: len(content) // 2])
    refused(name, "cannot be read")


def test_trajectories_one_after_the_other(workplace: Path) -> None:
    ase.io.write("a.traj", frames())
    read_whole("a.traj")
    Path("a.traj").write_bytes(Path("a.traj").read_bytes() * 2)
    refused("a.traj", "several files one after the other, of which only the first (4 frames)")
