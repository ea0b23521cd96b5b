"""Files of metatensor maps, zip archives, memory-mapped folders: the same labels, clear errors."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import metatensor.torch as mts
import numpy as np
import pytest
import torch
from helpers.formats import (
    TARGETS,
    frames,
    read,
    repack,
    same,
    save_map,
    simple_map,
    write_store,
    write_xyz,
)
from helpers.frames import build
from metatensor.torch import Labels, TensorMap

from atomtrain.data import StructureStore
from atomtrain.errors import DataError, OptionsError, OutputError

AXES = {"type": {"cartesian": {"rank": 1}}}
XYZ = Labels.range("xyz", 3)


@pytest.fixture
def truth(workplace: Path) -> StructureStore:
    """Structures in ``a.xyz`` with values for TARGETS, as read from there."""
    write_xyz(frames())
    return read(**TARGETS)


def named(file: str) -> dict[str, Any]:
    """TARGETS, each read from its file."""
    return {
        name: {**t, "read_from": file.format(t.get("key", name))} for name, t in TARGETS.items()
    }


@pytest.mark.parametrize(
    ("output", "systems", "file", "digits"),
    [
        ("d.zip", "d.zip", "d.zip", 1e-12),
        ("d.zip", "a.xyz", "d.zip", 1e-12),
        ("d.mts", "a.xyz", "d_{}.mts", 1e-12),
        ("d/", "d", "d/", 3e-7),
        ("d/", "a.xyz", "d", 3e-7),
    ],
)
def test_same_labels_from_every_format(
    truth: StructureStore, output: str, systems: str, file: str, digits: float
) -> None:
    write_store(truth, output)
    found = read(systems, **named(file))
    assert set(found.labels) == set(truth.labels)
    assert {"energy:forces", "energy:strain"} < set(found.labels)
    for key, label in truth.labels.items():
        same(found.labels[key], label, digits * 100 if key == "energy:strain" else digits)
    assert torch.equal(found.types, truth.types)
    torch.testing.assert_close(found.positions, truth.positions, rtol=0, atol=10 * digits)
    torch.testing.assert_close(found.cells, truth.cells, rtol=0, atol=10 * digits)
    assert torch.equal(found.pbc, truth.pbc)


def test_systems_and_targets_of_one_archive_need_no_paths(truth: StructureStore) -> None:
    write_store(truth, "d.zip")
    same(read("d.zip", **TARGETS).labels["mtt::q"], truth.labels["mtt::q"])


def _unsaid(value: Any) -> Any:
    """Options without any number of properties."""
    if isinstance(value, list):
        return [_unsaid(v) for v in value]
    if not isinstance(value, dict):
        return value
    return {k: _unsaid(v) for k, v in value.items() if k not in ("num", "num_subtargets")}


@pytest.mark.parametrize(("output", "file"), [("d.zip", "d.zip"), ("d.mts", "d_{}.mts")])
def test_maps_tell_how_many_properties_there_are(
    truth: StructureStore, output: str, file: str
) -> None:
    """Of targets of structures and atoms, in one block or several, and of extra data."""
    write_store(truth, output)
    found = read("a.xyz", **_unsaid(named(file)))
    for key in ("mtt::dos", "mtt::born", "mtt::q"):
        assert found.labels[key].values.shape == truth.labels[key].values.shape
    same(found.labels["mtt::dos"], truth.labels["mtt::dos"])
    extra = {"grid": {"key": "dos", "read_from": file.format("dos")}}
    section = {"systems": "a.xyz", "targets": {"energy": "a.xyz"}, "extra_data": extra}
    assert build(section, [section]).train.extra["grid"].values.shape == (4, 4)


def test_sections_with_different_numbers_of_properties(truth: StructureStore) -> None:
    write_store(truth, "d.zip")
    dos = {"key": "dos", "read_from": "d.zip"}
    wrong = {"systems": "a.xyz", "targets": {"mtt::dos": {**dos, "read_from": "three.mts"}}}
    mts.save("three.mts", simple_map(range(4), torch.ones(4, 3)))
    right = {"systems": "a.xyz", "targets": {"mtt::dos": dos}}
    with pytest.raises(OptionsError, match=r"different numbers of properties .* \(4, and 3"):
        build(right, [wrong])
    with pytest.raises(DataError, match=r"3 properties, expected 4"):  # what is said counts
        read("a.xyz", **{"mtt::dos": {"read_from": "three.mts", "num_subtargets": 4}})


@pytest.mark.parametrize("compress", [False, True])
def test_members_of_an_archive_may_be_plain(truth: StructureStore, compress: bool) -> None:
    """Maps as they are rather than wrapped by numpy, packed or not, other files in between."""
    write_store(truth, "d.zip")
    with zipfile.ZipFile("d.zip") as old, zipfile.ZipFile("e.zip", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".mts"):
                content = np.load(io.BytesIO(content)).tobytes()
            new.writestr(name, content, zipfile.ZIP_DEFLATED if compress else None)
        new.writestr("README", "hello")
        new.writestr("007/energy.mts", "not a number of ours")
    same(read("e.zip", energy={}).labels["energy"], truth.labels["energy"])


@pytest.mark.parametrize("file", ["peer.zip", "peer", "peer_{}.mts"])
def test_files_of_metatrain(workplace: Path, file: str) -> None:
    """Written by metatrain 2026.4.1 (see metatrain/write.py for what is in them)."""
    with zipfile.ZipFile(Path(__file__).parent / "metatrain" / "written.zip") as archive:
        archive.extractall()
    targets: dict[str, Any] = {
        "energy": {"forces": True, "stress": True},
        "mtt::pull": {"sample_kind": "atom", **AXES},
        "mtt::twist": {
            "type": {"spherical": {"irreps": [{"o3_lambda": 1, "o3_sigma": 1, "num": 2}]}}
        },
    }
    named = {name: {**target, "read_from": file.format(name)} for name, target in targets.items()}
    store = read("peer" if "mts" in file else file, **named)
    assert store.types.tolist() == [14, 6, 14, 6, 8]
    assert store.positions.flatten().tolist() == [*np.arange(6) / 8, *np.arange(9) / 8]
    assert store.pbc.tolist() == [[True] * 3, [False] * 3]
    assert store.cells[0].diagonal().tolist() == [4, 5, 6]
    found = {key: label.values.flatten().tolist() for key, label in store.labels.items()}
    assert found["energy"] == [0.5, 1.5]
    assert found["energy:forces"] == list(range(15))
    assert found["energy:strain"] == pytest.approx([*(120.0 * np.arange(9)), *[0.0] * 9])
    assert store.labels["energy:strain"].mask is not None
    assert found["mtt::pull"] == list(range(10, 25))
    assert found["mtt::twist"] == list(range(20, 32))


def test_indices_pick_from_every_format(truth: StructureStore) -> None:
    from helpers.frames import build

    write_store(truth, "d.zip")
    write_store(truth, "d.mts")
    write_store(truth, "d/")
    expected = truth.select(torch.tensor([3, 1]))
    for file in ("d.zip", "d_{}.mts", "d"):
        section = {"systems": "a.xyz", "targets": named(file), "indices": [3, 1]}
        found = build(section, [section]).train
        for key in expected.labels:
            same(found.labels[key], expected.labels[key], 1e-4)


def test_a_map_for_each_structure_in_a_folder(truth: StructureStore) -> None:
    values = truth.labels["mtt::dipole"].values
    for k in range(4):
        save_map(f"dipoles/{k}.mts", simple_map([17], values[k].reshape(1, 3, 1), components=[XYZ]))
    found = read(**{"mtt::dipole": {**AXES, "read_from": "dipoles"}})
    same(found.labels["mtt::dipole"], truth.labels["mtt::dipole"])
    Path("dipoles/2.mts").unlink()
    with pytest.raises(DataError, match=r"missing in 1 of 4 structures \(frame 2 of 'dipoles'\)"):
        read(**{"mtt::dipole": {**AXES, "read_from": "dipoles"}})
    save_map("dipoles/4.mts", simple_map([0], np.zeros((1, 3, 1)), components=[XYZ]))
    with pytest.raises(DataError, match=r"'dipoles' holds maps for 5 structures, but there are 4"):
        read(**{"mtt::dipole": {**AXES, "read_from": "dipoles"}})


def test_samples_in_any_order(truth: StructureStore) -> None:
    starts = truth.offsets[:-1]
    structures = torch.repeat_interleave(torch.arange(4), truth.n_atoms)
    atoms = torch.arange(len(structures)) - starts[structures]
    mixed = torch.from_numpy(np.random.default_rng(0).permutation(len(structures)))
    values = truth.labels["mtt::born"].values.reshape(-1, 3, 3, 1)
    axes = [Labels.range("xyz_1", 3), Labels.range("xyz_2", 3)]
    born = simple_map(structures[mixed], values[mixed], atoms=atoms[mixed], components=axes)
    save_map("born.mts", born)
    found = read(**{"mtt::born": {**TARGETS["mtt::born"], "read_from": "born.mts"}})
    same(found.labels["mtt::born"], truth.labels["mtt::born"])


def test_blocks_in_any_order(truth: StructureStore) -> None:
    write_store(truth, "d.mts")
    q = mts.load("d_q.mts")
    assert q.keys.values.tolist() == [[2, 1], [0, 1]]
    swapped = Labels(["o3_sigma", "o3_lambda"], torch.tensor([[1, 0], [1, 2]]))
    save_map("q.mts", TensorMap(swapped, [q.block(1).copy(), q.block(0).copy()]))
    found = read(**{"mtt::q": {**TARGETS["mtt::q"], "read_from": "q.mts"}})
    same(found.labels["mtt::q"], truth.labels["mtt::q"])


def test_numbers_of_systems(truth: StructureStore) -> None:
    """The numbers of the structures, or one after the other from another number on."""
    target = {"read_from": "e.mts", "forces": False, "stress": False}
    for numbers in ([2, 0, 3, 1], [0, 1, 2, 3], [1, 2, 3, 4], [10, 11, 12, 13]):
        save_map("e.mts", simple_map(numbers, [[float(k)] for k in numbers]))
        found = read(energy=target).labels["energy"].values.flatten()
        assert (found - min(numbers)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 2, 3, 99], "no structure is 99, and none of 0;"),
        ([40, 10, 20, 30], "no structure is 10, 20, 30, 40, and none of 0, 1, 2, 3;"),
        ([13, 12, 11, 10], "no structure is 10, 11, 12, 13"),  # the row or the number?
        ([10, 20, 30], "its samples are of 3 systems; there are 4 structures, numbered 0 to 3"),
        ([-1, 0, 1, 2, 3], "no structure is -1;"),
        ([0, 1, 2, 3, 4], "no structure is 4;"),
    ],
)
def test_numbers_of_no_system(truth: StructureStore, numbers: list[int], message: str) -> None:
    save_map("e.mts", simple_map(numbers, [[float(k)] for k in numbers]))
    with pytest.raises(DataError, match=f"the map in 'e.mts' does not fit 'energy': .*{message}"):
        read(energy={"read_from": "e.mts", "forces": False, "stress": False})


def test_missing_structures_of_a_map(truth: StructureStore) -> None:
    save_map("e.mts", simple_map([0, 3], [[0.5], [3.5]]))
    target = {"read_from": "e.mts", "forces": False, "stress": False}
    message = (
        r"'energy' is missing in 2 of 4 structures \(frames 1, 2 of 'e.mts'\); .*allow_missing"
    )
    with pytest.raises(DataError, match=message):
        read(energy=target)
    label = read(energy={**target, "allow_missing": True}).labels["energy"]
    assert label.values.flatten().tolist() == [0.5, 0, 0, 3.5]
    assert label.mask is not None
    assert label.mask.flatten().tolist() == [True, False, False, True]


def test_missing_atoms_and_nan_in_a_map(truth: StructureStore) -> None:
    save_map("q.mts", simple_map([0, 0, 1, 1], [[1.0], [2], [3], [np.nan]], atoms=[0, 1, 0, 2]))
    target = {"read_from": "q.mts", "sample_kind": "atom", "allow_missing": True}
    with pytest.raises(DataError, match=r"'mtt::q' is NaN or infinite in frame 1 of 'q.mts'"):
        read(**{"mtt::q": target})
    save_map("q.mts", simple_map([0, 0, 1, 1], [[1.0], [2], [3], [4]], atoms=[0, 1, 0, 2]))
    label = read(**{"mtt::q": target}).labels["mtt::q"]
    assert label.mask is not None
    assert label.mask.flatten()[:6].tolist() == [True, True, True, False, True, False]
    assert label.values.flatten()[:6].tolist() == [1, 2, 3, 0, 4, 0]
    save_map("q.mts", simple_map([0, 0], [[1.0], [2]], atoms=[0, 2]))
    with pytest.raises(DataError, match=r"value for atom 2 of structure 0, which has 2 atoms"):
        read(**{"mtt::q": target})


def test_gradients_of_a_map_are_found_or_asked_for(truth: StructureStore) -> None:
    save_map("e.mts", simple_map(range(4), [[0.0], [1], [2], [3]]))
    assert set(read(energy={"read_from": "e.mts"}).labels) == {"energy"}
    with pytest.raises(DataError, match=r"forces: 'e.mts' has no gradient 'positions'; the file"):
        read(energy={"read_from": "e.mts", "forces": True})
    write_store(truth, "d.mts")
    found = read(energy={"read_from": "d_energy.mts", "forces": True, "virial": True})
    same(found.labels["energy:strain"], truth.labels["energy:strain"])
    with pytest.raises(DataError, match=r"'d_dos.mts' does not fit 'energy': it has 4 properties"):
        read(energy={"forces": "d_dos.mts"})


@pytest.mark.parametrize(
    ("target", "found", "message"),
    [
        (
            {"num_subtargets": 2},
            simple_map(range(4), np.zeros((4, 3))),
            "it has 3 properties, expected 2",
        ),
        (
            {"sample_kind": "atom"},
            simple_map(range(4), np.zeros((4, 1))),
            r"its samples are system, expected system and atom \(sample_kind: atom\)",
        ),
        (
            {},
            simple_map([0, 0], np.zeros((2, 1)), atoms=[0, 1]),
            r"its samples are system and atom, expected system \(sample_kind: system\)",
        ),
        (
            AXES,
            simple_map(range(4), np.zeros((4, 1))),
            r"its components are none, expected xyz \(0 to 2\)",
        ),
        (
            AXES,
            simple_map(
                range(4),
                np.zeros((4, 3, 1)),
                components=[Labels("xyz", torch.tensor([[1], [2], [3]]))],
            ),
            r"its components are xyz \(1 to 3\), expected xyz \(0 to 2\)",
        ),
        (
            {"type": {"spherical": {"irreps": [{"o3_lambda": 1, "o3_sigma": 1}]}}},
            simple_map(range(4), np.zeros((4, 3, 1)), components=[XYZ]),
            "its keys are _, expected o3_lambda, o3_sigma",
        ),
        (
            {"type": {"spherical": {"irreps": [{"o3_lambda": 1, "o3_sigma": 1}]}}},
            simple_map(
                range(4),
                np.zeros((4, 3, 1)),
                components=[Labels("o3_mu", torch.tensor([[-1], [0], [1]]))],
                keys=Labels(["o3_lambda", "o3_sigma"], torch.tensor([[1, -1]])),
            ),
            "its blocks are l=1 s=-1, expected l=1 s=1",
        ),
    ],
)
def test_wrong_layout(
    truth: StructureStore, target: dict[str, Any], found: TensorMap, message: str
) -> None:
    save_map("t.mts", found)
    message = rf"mtt::t: the map in 't.mts' does not fit 'mtt::t': .*{message}"
    with pytest.raises(DataError, match=message):
        read(**{"mtt::t": {**target, "read_from": "t.mts"}})


def test_other_structures(truth: StructureStore) -> None:
    write_store(truth, "d.zip")
    write_store(truth, "d/")
    write_xyz(frames(3), "short.xyz")
    write_xyz(frames()[::-1], "reversed.xyz")
    for file in ("d.zip", "d"):
        with pytest.raises(DataError, match=rf"'{file}' holds 4 frames, but there are 3 struct"):
            read("short.xyz", energy=file)
        with pytest.raises(DataError, match=rf"frames 0, 1, 2, 3 of '{file}' have other atoms"):
            read("reversed.xyz", energy=file)
    repack("d.zip", "labels.zip", drop=tuple(f"{k}/system.mta" for k in range(4)))
    same(read(energy="labels.zip").labels["energy"], truth.labels["energy"])
    with pytest.raises(
        DataError, match=r"'labels.zip' has folders for 4 structures, but there are"
    ):
        read("short.xyz", energy="labels.zip")
    with pytest.raises(DataError, match=r"'labels.zip' holds no structures"):
        read("labels.zip", energy={})
    write_store(truth, "d.mts")
    with pytest.raises(DataError, match=r"'d_energy.mts' holds no structures"):
        read("d_energy.mts", energy={})


def test_archives_that_lack_something(truth: StructureStore) -> None:
    write_store(truth, "d.zip")
    repack("d.zip", "e.zip", drop=("1/energy.mts",))
    with pytest.raises(DataError, match=r"'energy' is missing in 1 of 4 structures \(frame 1 of"):
        read("e.zip", energy={})
    optional = read("e.zip", energy={"allow_missing": True, "forces": False, "stress": False})
    assert optional.labels["energy"].mask is not None
    repack("d.zip", "e.zip", drop=("2/system.mta",))
    with pytest.raises(DataError, match=r"'e.zip' has folders without 'system.mta' \(frame 2\)"):
        read("e.zip", energy={})
    with pytest.raises(
        DataError, match=r"'d.zip' has no 'enrgy'; did you mean 'energy'\? the file"
    ):
        read("d.zip", energy={"key": "enrgy"})
    repack("d.zip", "e.zip", drop=tuple(n for n in zipfile.ZipFile("d.zip").namelist()))
    with pytest.raises(DataError, match=r"'e.zip' holds neither structures .* nor labels"):
        read("e.zip", energy={})


def test_damaged_archives(truth: StructureStore) -> None:
    write_store(truth, "d.zip")
    content = bytearray(Path("d.zip").read_bytes())
    Path("cut.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"systems.read_from: 'cut.zip' holds .* or it is damaged"):
        read("cut.zip", energy={})
    Path("text.zip").write_text("nothing")
    with pytest.raises(DataError, match=r"'text.zip' is not a zip archive: BadZipFile"):
        read("text.zip", energy={})
    with zipfile.ZipFile("d.zip") as archive:
        place = archive.getinfo("1/energy.mts").header_offset + 200
    content[place] ^= 255
    Path("bad.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read '1/energy.mts' in 'bad.zip': BadZipFile"):
        read("bad.zip", energy={})
    with pytest.raises(DataError, match=r"the file 'none.zip' does not exist"):
        read("none.zip", energy={})
    Path("e.mts").write_text("nothing")
    with pytest.raises(DataError, match=r"'e.mts' cannot be read as a metatensor TensorMap"):
        read(energy="e.mts")
    with pytest.raises(DataError, match=r"the file 'none.mts' does not exist"):
        read(energy="none.mts")


def test_memory_mapped_folders_that_are_wrong(truth: StructureStore) -> None:
    write_store(truth, "d/")
    energy = Path("d/energy.bin").read_bytes()
    Path("d/energy.bin").write_bytes(energy[:-1])
    message = (
        r"'d/energy.bin' has 15 bytes, but 4 x 1 numbers \(float32\) make 16; there are 4 struc"
    )
    with pytest.raises(DataError, match=message):
        read("d", energy={})
    Path("d/energy.bin").write_bytes(energy)
    with pytest.raises(DataError, match=r"'d/dos.bin' has 64 bytes, .*: check sample_kind, type"):
        read("d", **{"mtt::dos": {"key": "dos", "num_subtargets": 3}})
    with pytest.raises(DataError, match=r"'d' has no 'dose'; did you mean 'dos'\?"):
        read("d", **{"mtt::dos": {"key": "dose", "num_subtargets": 4}})
    np.save("d/na.npy", np.array([0, 2, 5]))
    with pytest.raises(DataError, match=r"na.npy of 'd' must hold 5 numbers"):
        read("d", energy={})
    Path("d/ns.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"'d' is not a memory-mapped data set"):
        read("d", energy={})
    Path("d/ns.npy").unlink()
    with pytest.raises(DataError, match=r"'d' is a directory, but neither a folder of arrays"):
        read("d", energy={})


def test_memory_mapped_positions_cut_or_absent(truth: StructureStore) -> None:
    write_store(truth, "d/")
    positions = Path("d/x.bin").read_bytes()
    Path("d/x.bin").write_bytes(positions[:-4])
    with pytest.raises(DataError, match=r"'d/x.bin' has 164 bytes, .* write it again"):
        read("d", energy={})
    Path("d/x.bin").unlink()
    with pytest.raises(DataError, match=r"'d' is incomplete: there is no 'x.bin'"):
        read("d", energy={})


def test_memory_mapped_stress_without_volume(workplace: Path) -> None:
    made = [*frames(2), *frames(4, pbc=False, stress=None)[2:]]
    write_xyz(made)
    truth = read(**TARGETS)
    truth.labels["energy:strain"].mask = None
    write_store(truth, "d/")
    assert np.isnan(np.fromfile("d/energy_stress.bin", "<f4").reshape(4, 9)[2:]).all()
    found = read("d", **TARGETS).labels["energy:strain"]
    assert found.mask is not None
    assert found.mask.all(1).tolist() == [True, True, False, False]
    assert not read("d", **TARGETS).pbc[2:].any()


def test_forces_under_their_own_name(truth: StructureStore) -> None:
    write_store(truth, "d/")
    Path("d/energy_forces.bin").rename("d/forces.bin")
    Path("d/energy_stress.bin").rename("d/pressure.bin")
    found = read("d", energy={"stress": {"key": "pressure"}})
    same(found.labels["energy:forces"], truth.labels["energy:forces"], 3e-7)
    same(found.labels["energy:strain"], truth.labels["energy:strain"], 3e-5)
    virial = read("d", energy={"virial": {"key": "pressure"}}).labels["energy:strain"].values
    volume = torch.linalg.det(truth.cells).abs()[:, None]
    torch.testing.assert_close(-virial * volume, found.labels["energy:strain"].values)


def test_variants_are_no_folders(truth: StructureStore) -> None:
    from atomtrain.data.writers import Predictions, choose_output
    from atomtrain.targets import TargetInfo

    info = TargetInfo("energy/pbe", quantity="energy")
    values = {
        f"energy/pbe{part}": truth.labels[f"energy{part}"].values
        for part in ("", ":forces", ":strain")
    }
    values["energy/pbe:stress"] = torch.zeros(4, 9)
    for output in ("d.zip", "d.mts", "d/"):
        made = Predictions(truth, truth.cells.numpy(), {"energy/pbe": info}, values)
        choose_output(output).write(made)
    for file in ("d.zip", "d_energy_pbe.mts", "d"):
        found = read(**{"energy/pbe": {"read_from": file, "stress": False}})
        same(found.labels["energy/pbe:forces"], truth.labels["energy:forces"], 1e-6)


def test_reader_by_name(truth: StructureStore) -> None:
    write_store(truth, "d.zip")
    Path("d.zip").rename("d.data")
    with pytest.raises(DataError, match=r"reader 'metatensor' reads .mts files, .zip archives"):
        read(energy={"read_from": "d.data", "reader": "metatensor"})
    save_map("e.mts", simple_map(range(4), np.zeros((4, 1))))
    read(energy={"read_from": "e.mts", "reader": "metatensor"})


@pytest.mark.parametrize("output", ["d.xyz", "d.zip", "d.mts", "d/"])
def test_half_written_files_are_not_left(
    truth: StructureStore, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    for name in ("d.xyz", "d.zip", "d_energy.mts"):
        Path(name).write_text("earlier")
    before = sorted(Path().iterdir())

    def fail(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("numpy.save", fail)
    monkeypatch.setattr("ase.io.write", fail)
    monkeypatch.setattr(mts, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        write_store(truth, output)
    assert sorted(Path().iterdir()) == before
    assert Path("d.zip").read_text() == Path("d_energy.mts").read_text() == "earlier"


def test_places_for_predictions(workplace: Path) -> None:
    from atomtrain.data.writers import choose_output

    assert choose_output("p.mts").files(["energy", "mtt::a/b"]) == [
        Path("p_energy.mts"),
        Path("p_mtt::a_b.mts"),
    ]
    assert choose_output("p.zip", 3).files(["energy"]) == [Path("p_3.zip")]
    assert choose_output("p.v2/", 1).files(["energy"]) == [Path("p.v2_1")]
    assert choose_output("p").folder
    Path("full").mkdir()
    assert choose_output("full/").folder
    Path("full/file").touch()
    for output, message in {
        "full/": "a folder with files in it; remove it first",
        "full/file": "it is a file",
        "p.zip/": "cannot end in a slash",
        "p.npz": r"written as .xyz, .extxyz, .traj, .db, .json, .zip, .mts .*by the ext",
        "none/p.zip": "there is no directory 'none'",
    }.items():
        with pytest.raises(OutputError, match=message):
            choose_output(output)


def test_files_are_like_any_other(truth: StructureStore) -> None:
    """Readable by others, as files that were not made in private first."""
    Path("plain").touch()
    Path("folder").mkdir()
    for output in ("d.zip", "d.mts", "d/"):
        write_store(truth, output)
    mode = Path("plain").stat().st_mode
    assert {p.stat().st_mode for p in Path().glob("d*.*")} == {mode}
    assert {p.stat().st_mode for p in Path("d").iterdir()} == {mode}
    assert Path("d").stat().st_mode == Path("folder").stat().st_mode
    assert not [p for p in Path().iterdir() if re.match(r"\..*tmp", p.name)]


@pytest.mark.parametrize("output", ["d.zip", "d.mts", "d/"])
def test_classes_from_formats_that_hold_numbers(truth: StructureStore, output: str) -> None:
    """Numbers of classes, or a probability for each."""
    from atomtrain.data import Label
    from atomtrain.data.writers import Predictions, choose_output
    from atomtrain.targets import TargetInfo

    number = torch.tensor([[0.0], [2], [1], [2]], dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(number[:, 0].long(), 3).double()
    infos = {"phase": TargetInfo("phase"), "share": TargetInfo("share", num_subtargets=3)}
    values = {"phase": number, "share": one_hot}
    choose_output(output).write(Predictions(truth, truth.cells.numpy(), infos, values))
    file = "d_{}.mts" if output == "d.mts" else output
    for key, sizes in {"phase": {}, "share": {"num_subtargets": 3}}.items():
        target = {"type": "classes", "key": key, "read_from": file.format(key), **sizes}
        same(read(**{"mtt::c": target}).labels["mtt::c"], Label(one_hot, False))
