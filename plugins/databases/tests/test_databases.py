"""Data sets of fairchem and MACE: what is in them becomes frames, what is not theirs is refused."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ase.db
import h5py
import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db.row import AtomsRow
from ase.io.jsonio import encode
from helpers.alloy import crystal

from atomtrain.data import Files, Remarks, read_section
from atomtrain.data.convert import convert
from atomtrain.data.readers import LazyFrames, Reading, frames_of
from atomtrain.data.readers.base import DataFile
from atomtrain.errors import DataError
from atomtrain.options import DatasetSection

Encode = Callable[[Any], bytes]
DATA = {
    "charge": -1,
    "spin": 2,
    "source": "a/b",
    "lowdin": np.arange(3.0),
    "orbitals": {"homo": -0.2},
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(path: str | Sequence[str], reader: str | None = None) -> DataFile:
    return Files().structures(path, reader, "here")


def problem(path: str | Sequence[str], reader: str | None = None) -> str:
    with pytest.raises(DataError, match=r"^here: ") as error:
        read(path, reader)
    return str(error.value)


# fairchem


def as_now(value: Any) -> bytes:
    """A record as ``ase_db_backends.aselmdb`` 0.11 writes it (``encode_object``): ASE's JSON."""
    return zlib.compress(encode(value).encode())


def as_first(value: Any) -> bytes:
    """As ``fairchem.core.datasets.lmdb_database`` 1.1 does: orjson makes lists of arrays, null of NaN."""

    def plain(one: Any) -> Any:
        if isinstance(one, np.ndarray):
            return plain(one.tolist())
        if isinstance(one, dict):
            return {key: plain(inner) for key, inner in one.items()}
        if isinstance(one, list):
            return [plain(inner) for inner in one]
        if isinstance(one, np.generic):
            return plain(one.item())
        return None if isinstance(one, float) and np.isnan(one) else one

    return zlib.compress(json.dumps(plain(value)).encode())


def records(path: str, content: dict[str, bytes]) -> None:
    """A file of LMDB, without its lock file, as it is copied to others."""
    environment = lmdb.open(path, subdir=False, map_size=2**26, lock=False)
    with environment, environment.begin(write=True) as transaction:
        for key, value in content.items():
            transaction.put(key.encode(), value)


def row(atoms: Atoms, data: dict[str, Any], encoded: Encode = as_now) -> bytes:
    """A row as ``LMDBDatabase._write`` of both fills it."""
    one = AtomsRow(atoms)
    constraints = [constraint.todict() for constraint in atoms.constraints]
    content = {key: one[key] for key in one.__dict__ if key[0] != "_" and key != "id"}
    content |= {"ctime": 1.0, "mtime": 1.0, "user": "me", "key_value_pairs": {"kind": "md"}}
    content |= {"data": data, "cell": np.asarray(content["cell"])}
    return encoded(content | ({"constraints": constraints} if constraints else {}))


def structures() -> list[Atoms]:
    made = []
    for k in range(4):
        atoms = bulk("Cu", cubic=True) if k % 2 else molecule("H2O")
        atoms.rattle(0.05, seed=k)
        forces = np.random.default_rng(k).normal(size=(len(atoms), 3))
        results = {"energy": -1.5 * k, "forces": forces}
        if k % 2:
            results["stress"] = np.arange(6) * 0.01
            atoms.set_constraint(FixAtoms([1, 2]))
        if k == 2:
            del results["forces"]
        atoms.calc = SinglePointCalculator(atoms, **results)
        made.append(atoms)
    return made


def aselmdb(path: str, atoms: list[Atoms], encoded: Encode = as_now, **more: Any) -> None:
    content = {str(k): row(one, DATA, encoded) for k, one in enumerate(atoms, 1)}
    more = {"nextid": len(atoms) + 1, "metadata": {"of": "tests"}, **more}
    records(path, content | {key: encoded(value) for key, value in more.items()})


@pytest.mark.parametrize("encoded", [as_now, as_first])
def test_rows_are_those_of_the_database(encoded: Encode) -> None:
    """What ASE's own kind of database gives for the same structures, to the last bit."""
    atoms = structures()
    aselmdb("a.aselmdb", atoms, encoded)
    database = ase.db.connect("a.db")
    for one in atoms:
        database.write(one, data=DATA, kind="md")
    file, same = read("a.aselmdb"), read("a.db")
    assert len(file.frames) == len(same.frames) == 4
    for ours, theirs in zip(file.frames, same.frames, strict=True):
        assert ours.keys == theirs.keys
        assert ours.per_atom.keys() == theirs.per_atom.keys()
        for name in ("numbers", "positions", "cell", "pbc", "fixed"):
            assert_same(getattr(ours, name), getattr(theirs, name))
        for key in ours.keys - {"orbitals"}:
            assert_same(ours.find(key), theirs.find(key))
    assert file.frames[0].find("homo") == -0.2
    assert os.listdir().count("a.aselmdb-lock") == 0


def assert_same(ours: Any, theirs: Any) -> None:
    assert np.asarray(ours).dtype == np.asarray(theirs).dtype
    np.testing.assert_array_equal(ours, theirs)


def test_nan_and_null() -> None:
    """What is null as a whole is missing, in an array it is NaN."""
    atoms = structures()[:1]
    atoms[0].calc.results["forces"][0, 1] = np.nan
    content = json.loads(zlib.decompress(row(atoms[0], DATA, as_first))) | {"energy": None}
    records("a.aselmdb", {"1": as_first(content), "nextid": as_first(2)})
    (frame,) = read("a.aselmdb").frames
    assert np.isnan(frame.find("forces")).sum() == 1 and frame.find("forces").dtype == np.float64
    assert frame.find("energy") is None


def test_deleted_rows_and_an_index_that_is_behind() -> None:
    atoms = structures()
    content = {str(k): row(one, DATA) for k, one in enumerate(atoms, 1) if k != 2}
    records("a.aselmdb", {**content, "nextid": as_now(5), "deleted_ids": as_now([2])})
    assert [frame.find("energy") for frame in read("a.aselmdb").frames] == [0, -3, -4.5]
    assert not Files().warnings
    records("b.aselmdb", {**content, "nextid": as_now(3)})
    files = Files()
    assert len(files.structures("b.aselmdb", None, "here").frames) == 3
    assert "its index tells of 2 rows, but 3 are there" in files.warnings[0]


def test_lmdb_that_is_cut_off_or_changed() -> None:
    aselmdb("a.aselmdb", structures())
    content = Path("a.aselmdb").read_bytes()
    lazy = frames_of("a.aselmdb", None, "here")
    os.truncate("a.aselmdb", 8192)  # under the eyes of its reader
    with pytest.raises(DataError, match=r"is cut off: 8192 of \d+ bytes are there; copy"):
        lazy[0]
    for size in (100, 8192, len(content) - 1):
        Path("b.aselmdb").write_bytes(content[:size])
        assert "(aselmdb) is cut off" in problem("b.aselmdb")
    records("c.aselmdb", {"1": row(structures()[0], {})[:-9], "nextid": as_now(2)})
    assert "its record '1' is no row of ASE's database" in problem("c.aselmdb")
    records("d.aselmdb", {"1": as_now({"energy": 1.0}), "nextid": as_now(2)})
    assert "row 1 has no numbers and positions (it has energy)" in problem("d.aselmdb")
    records("e.aselmdb", {"1": as_now({"numbers": [1], "positions": [0, 0]}), "nextid": as_now(2)})
    assert "row 1 cannot be read: cannot reshape" in problem("e.aselmdb")


class Runs:
    """A pickle of it would make a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("length", [True, False])
def test_pickles_are_not_run(length: bool) -> None:
    """OC20's files: pickles under 0, 1, ... and their number under ``length``."""
    content = {str(k): pickle.dumps([Runs(), k], protocol=-1) for k in range(3)}
    records("data.lmdb", content | ({"length": pickle.dumps(3, protocol=-1)} if length else {}))
    assert "holds Python pickles, as the LMDB files of OC20 and OC22 do" in problem("data.lmdb")
    assert not Path("ran").exists()


def test_other_lmdb() -> None:
    records("a.lmdb", {"images": b"x", "labels": b"y"})
    assert (
        "is not a database of ASE: rows have numbers for keys, but its 2 keys are 'images', "
        in (problem("a.lmdb"))
    )
    records("b.lmdb", {})
    assert "holds no structures" in problem("b.lmdb")


# MACE


def mace(path: str, atoms: list[Atoms], older: bool = False, batch: int = 100) -> None:
    """As ``save_configurations_as_HDF5`` writes: of MACE 0.3.16, or 0.3.10 (``older``)."""
    with h5py.File(path, "w") as file:
        file.attrs["drop_last"] = len(atoms) % 2 == 1
        for k, one in enumerate(atoms):
            group = file.require_group(f"config_batch_{k // batch}").create_group(
                f"config_{k % batch}"
            )
            volume = one.get_volume() if one.pbc.any() else 0.0
            results = dict(one.calc.results)
            if "stress" in results:
                results["virials"] = -volume * one.get_stress(voigt=False)
            names = ("energy", "forces", "stress", "virials", "dipole", "charges")
            group["atomic_numbers"], group["positions"] = one.numbers, one.positions
            group["cell"], group["pbc"] = one.cell.array, one.pbc
            group["weight"], group["config_type"] = 1.0 + k, "Default"
            values, weights, end = group, group, "_weight"
            if not older:
                values, end = group.create_group("properties"), ""
                weights = group.create_group("property_weights")
                values["head"], weights["head"] = "", 1.0
            for name in names:
                values[name] = results.get(name, "None")
                weights[name + end] = float(name in results)


@pytest.mark.parametrize("older", [True, False])
def test_mace(older: bool) -> None:
    atoms = structures()
    mace("a.h5", atoms, older, batch=1 if older else 100)
    files = Files()
    frames = files.structures("a.h5", None, "here").frames
    for k, (frame, one) in enumerate(zip(frames, atoms, strict=True)):
        assert_same(frame.numbers, one.numbers)
        assert_same(frame.positions, one.positions)
        assert_same(frame.cell, one.cell.array)
        assert_same(frame.pbc, one.pbc)
        for key in ("energy", "forces", "stress"):
            np.testing.assert_array_equal(frame.find(key), one.calc.results.get(key))
        assert frame.keys <= {*one.calc.results, "virial", "config_weight", "config_type"}
        assert frame.find("config_weight") == (1.0 + k if k else None)
    assert "virial (virials, in 2, up to" in files.lines[0]
    assert not files.warnings and not files.open("a.h5", None, "here").compression("stress")


def test_values_without_weight_are_missing() -> None:
    mace("a.h5", structures())
    with h5py.File("a.h5", "a") as file:
        file["config_batch_0/config_0/property_weights/energy"][()] = 0.0
        file["config_batch_0/config_1/property_weights/forces"][()] = 2.0
    frames = read("a.h5").frames
    assert frames[0].find("energy") is None and frames[0].find("forces") is not None
    assert frames[1].find("config_forces_weight") == 2


def test_order_of_batches() -> None:
    """By number: config_10 comes after config_9."""
    mace("a.h5", structures() * 6, batch=2)
    energies = [frame.find("energy") for frame in read("a.h5").frames]
    assert energies == [0, -1.5, -3, -4.5] * 6


def test_mace_that_is_cut_off_or_odd() -> None:
    mace("a.h5", structures())
    Path("cut.h5").write_bytes(Path("a.h5").read_bytes()[:-100])
    assert "(mace-h5) is cut off or damaged, or still being written" in problem("cut.h5")
    last, other = "config_batch_0/config_3", "config_batch_0/config_1"

    def remove(file: h5py.File) -> None:
        del file[f"{last}/positions"]

    def shorten(file: h5py.File) -> None:
        remove(file)
        file[f"{last}/positions"] = [[0.0, 0.0, 0.0]]

    def rename(file: h5py.File) -> None:
        file.move(other, "config_batch_0/config_9")

    for k, (change, said) in enumerate(
        [
            (remove, f"'{last}' has no positions (it has atomic_numbers"),
            (shorten, f"'{last}' does not fit together: cannot reshape"),
            (rename, f"has no group '{other}', though there are more"),
        ]
    ):
        shutil.copy("a.h5", f"{k}.h5")
        with h5py.File(f"{k}.h5", "a") as file:
            change(file)
        assert said in problem(f"{k}.h5")


def test_other_hdf5() -> None:
    with h5py.File("a.h5", "w") as file:
        file["songs/one"] = 1
    assert "not of mace_prepare_data, which has groups config_batch_0/config_0" in problem("a.h5")
    assert "it has songs; write its structures as extended xyz" in problem("a.h5")
    with h5py.File("b.h5", "w") as file:
        file["water/type.raw"] = [0]
    assert "as DeePMD-kit's files have: write reader: dpdata" in problem("b.h5")
    with h5py.File("c.h5", "w") as file:
        file["config_0/node_attrs"] = np.eye(2)
    assert "has graphs with a cutoff" in problem("c.h5")


# Both


@pytest.mark.parametrize(("write", "reader"), [(aselmdb, "aselmdb"), (mace, "mace-h5")])
def test_packed_or_of_another_kind(write: Callable[[str, list[Atoms]], None], reader: str) -> None:
    write("a", structures())
    Path("a.gz").write_bytes(gzip.compress(Path("a").read_bytes()))
    assert f"({reader}) is packed; unpack it first" in problem("a.gz")
    Path("a.xyz").write_text("1\n\nC 0 0 0\n")
    assert f"({reader}) is not a file of" in problem("a.xyz", reader)
    assert "cannot be read: No such file" in problem("b", reader)
    read_as = Files().structures("a", None, "here", Reading(format=reader))
    assert len(read_as.frames) == 4


def test_folders_lists_and_wildcards() -> None:
    for k, name in enumerate(("b", "a", "c")):
        Path("train").mkdir(exist_ok=True)
        aselmdb(f"train/{name}.aselmdb", structures()[k : k + 1])
        Path("h5").mkdir(exist_ok=True)
        mace(f"h5/{name}.h5", structures()[k : k + 1])
    Path("train/metadata.npz").touch()
    for folder in ("train", "h5/"):
        file = read(folder)
        assert [frame.find("energy") for frame in file.frames] == [-1.5, 0, -3]
        assert file.named([2]).startswith(f"frame 0 of '{Path(folder, 'c')}")
        assert file.path == folder
    assert len(read(["train", "h5"]).frames) == len(read(["train/*lmdb", "h5/*"]).frames) == 6
    assert len(read("train", "aselmdb").frames) == 3
    assert "is given twice" in problem(["train", "train/a.aselmdb"])
    Path("train/a.h5").touch()
    assert "has files of several kinds (aselmdb, mace-h5); say which with reader" in problem(
        "train"
    )
    assert len(read("train", "aselmdb").frames) == 3


@pytest.mark.parametrize("write", [aselmdb, mace])
def test_piece_by_piece(write: Callable[[str, list[Atoms]], None]) -> None:
    """Frames are made when they are asked for, also of a copy for another process, and never kept."""
    write("a", structures())
    lazy = frames_of("a", None, "here")
    assert isinstance(lazy, LazyFrames) and len(lazy) == 4
    part = lazy[1:][::2]
    assert isinstance(part, LazyFrames) and len(part) == 2
    assert [frame.find("energy") for frame in part] == [-1.5, -4.5]
    assert lazy[-1].find("energy") == -4.5 and lazy[0] is not lazy[0]
    with pytest.raises(IndexError):
        lazy[4]
    assert [frame.find("energy") for frame in pickle.loads(pickle.dumps(part))] == [-1.5, -4.5]
    assert len(read("a").frames) == 4  # while another has it open


def test_labels() -> None:
    """What is trained on is what the same structures in a database of ASE give, to the last bit, converted or not."""
    atoms = [crystal(seed) for seed in range(6)]
    database = ase.db.connect("a.db")
    for one in atoms:
        database.write(one)
    aselmdb("a.aselmdb", atoms[:3])
    mace("b.h5", atoms[3:])
    targets = {"energy": {"unit": "eV", "forces": True, "stress": True}}
    convert(["a.aselmdb", "b.h5"], Path("store"))
    found = []
    for read_from in ("a.db", ["a.aselmdb", "b.h5"], "store"):
        section = DatasetSection.model_validate(
            {"systems": {"read_from": read_from}, "targets": targets}
        )
        found.append(read_section(section, Files(), Remarks()).store)
    assert set(found[0].labels) == {"energy", "energy:forces", "energy:strain"}
    for other in found[1:]:
        assert_same(found[0].positions, other.positions)
        for name, label in found[0].labels.items():
            assert_same(label.values, other.labels[name].values)
