"""Files of structures: what ASE reads, once each, and clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from helpers.frames import labelled

from atomtrain.data import Files, Frame
from atomtrain.data.readers import Account, LazyFrames, frames_of
from atomtrain.errors import DataError


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.traj", "a.db", "a.json"])
def test_results_info_and_arrays(workplace: Path, name: str) -> None:
    frames = [labelled(0), labelled(1, n=6)]
    ase.io.write(name, frames)
    read = Files().structures(name, None, "here").frames
    assert [len(f.numbers) for f in read] == [3, 6]
    for frame, atoms in zip(read, frames, strict=True):
        assert frame.find("energy") == pytest.approx(atoms.calc.results["energy"])
        np.testing.assert_allclose(frame.find("forces"), atoms.calc.results["forces"], atol=1e-7)
        # six numbers for six atoms are still one stress
        np.testing.assert_allclose(frame.per_structure["stress"], atoms.calc.results["stress"])
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-7)
        assert frame.pbc.all()


def test_keys_of_info_and_arrays(workplace: Path) -> None:
    atoms = Atoms("HO", [[0, 0, 0], [0, 0, 1]])
    atoms.info["gap"] = 2.5
    atoms.arrays["shift"] = np.array([1.0, 2.0])
    ase.io.write("a.xyz", atoms)
    frame = Files().structures("a.xyz", "ase", "here").frames[0]
    assert frame.find("gap") == 2.5
    assert frame.find("shift").tolist() == [1.0, 2.0]
    assert frame.find("nothing") is None
    assert frame.keys == {"gap", "shift"}


def test_a_file_is_read_once(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ase.io.write("a.xyz", [labelled(0)])
    calls = []
    read = ase.io.iread

    def counting(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return read(*arguments, **options)

    monkeypatch.setattr(ase.io, "iread", counting)
    files = Files()
    assert (
        files.structures("a.xyz", None, "here").frames
        is files.structures("a.xyz", "ase", "there").frames
    )
    assert len(calls) == 1


def test_file_not_there(workplace: Path) -> None:
    with pytest.raises(DataError, match=r"^here: the file 'a.xyz' does not exist \(working dir"):
        Files().structures("a.xyz", None, "here")
    with pytest.raises(DataError, match=r"here: '.' is a directory, but .*; name the files"):
        Files().structures(".", None, "here")


def test_unknown_reader(workplace: Path) -> None:
    with pytest.raises(DataError, match=r"here: there is no reader 'asse' \(there are: ase"):
        Files().structures("a.xyz", "asse", "here")


def test_reader_that_is_not_installed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomtrain.data.readers.components", lambda hook: {})
    with pytest.raises(
        DataError, match=r"there is no reader 'dpdata' .*; install atomtrain-dpdata"
    ):
        Files().structures("a", "dpdata", "here")


def test_reader_of_a_component(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atomtrain.contract.components import ComponentSpec

    def read(path: str, where: str) -> list[Frame]:
        return [Frame(np.array([1]), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, bool), {}, {})]

    monkeypatch.setattr(
        "atomtrain.data.readers.components",
        lambda hook: {"mine": ComponentSpec("mine", "one atom", lambda: read)},
    )
    assert Files().structures("any", "mine", "here").frames[0].numbers.tolist() == [1]


def one_atom(element: int) -> Frame:
    return Frame(np.array([element]), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, bool))


def test_readers_that_know_their_files(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are chosen by the first bytes, alone, in lists, and for all such files of a folder."""
    from atomtrain.contract import ReaderSpec

    def read(path: str, where: str) -> LazyFrames:
        content = Path(path).read_bytes()[2:]
        return LazyFrames(lambda k: one_atom(content[k] - 48), range(len(content)), Account("mine"))

    def spec(name: str) -> ReaderSpec:
        return ReaderSpec(name, "digits", lambda: read, lambda _, head: head[:2] == b"e:", ("*.e",))

    found = {"mine": spec("mine")}
    monkeypatch.setattr("atomtrain.data.readers.components", lambda hook: found)
    Path("folder").mkdir()
    Path("folder/b.e").write_text("e:12")
    Path("folder/a.e").write_text("e:3")
    Path("folder/README").write_text("of others")
    Path("lone.xyz").write_text("e:45")
    Path("real.xyz").write_text("1\n\nC 0 0 0\n")
    files = Files()
    file = files.structures(["folder", "lone.xyz", "real.xyz"], None, "here")
    assert [frame.numbers.tolist() for frame in file.frames] == [[3], [1], [2], [4], [5], [6]]
    assert file.named([1]) == f"frame 0 of '{Path('folder/b.e')}'"
    assert files.lines[0].startswith(f"read '{Path('folder/a.e')}': mine (mine); 1 structure; Li")
    assert frames_of("lone.xyz", None, "here")[1].numbers.tolist() == [5]
    assert isinstance(frames_of("lone.xyz", None, "here"), LazyFrames)

    found["other"] = spec("other")
    with pytest.raises(DataError, match=r"here: 'lone.xyz' is a file for several readers; say whi"):
        Files().structures("lone.xyz", None, "here")
    with pytest.raises(DataError, match=r"here: the folder 'folder' has files of several kinds"):
        Files().structures("folder", None, "here")
    assert len(Files().structures("folder", "other", "here").frames) == 3


@pytest.mark.parametrize("name", ["a.aselmdb", "a.h5"])
def test_folders_that_a_package_reads(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("atomtrain.data.readers.components", lambda hook: {})
    Path("folder").mkdir()
    Path("folder", name).touch()
    with pytest.raises(DataError, match=r"here: 'folder' is a directory.*atomtrain-databases: ins"):
        Files().structures("folder", None, "here")
