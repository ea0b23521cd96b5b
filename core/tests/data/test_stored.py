"""Data sets on disk: what was written is what is read, whole or in parts, and nothing changes unseen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from helpers.frames import awkward, build, labelled, section

from atomtrain.data import Datasets, Noise, StreamedStore, build_datasets, epoch_batches
from atomtrain.data import convert as conversion
from atomtrain.data.convert import convert, convert_options
from atomtrain.data.readers import Files, frames_of
from atomtrain.data.sampling import Blocks
from atomtrain.data.store import StructureStore
from atomtrain.data.stored import GAP, Array
from atomtrain.errors import DataError, OutputError
from atomtrain.options import load_options


def mixed() -> list[Atoms]:
    """Structures of all kinds, with values that some of them lack."""
    frames = [labelled(k, n=2 + k % 3, pbc=k % 2 == 0) for k in range(12)]
    frames += [Atoms("H2O", [[0, 0, 0], [0, 0, 1], [0, 1, 0]]), *awkward().values()]
    for k, atoms in enumerate(frames):
        atoms.info["number"] = k
        if k % 3:
            atoms.info["phase"] = ("fcc", "bcc")[k % 2]
            atoms.arrays["charges"] = np.linspace(-1, 1, len(atoms)) * k
        if k > 5:
            atoms.info["late"] = np.arange(4.0) + k
    frames[2].set_constraint(FixAtoms([1]))
    return frames


def same(one: StructureStore, other: StructureStore) -> None:
    """All tensors are equal to the last bit."""
    for name in ("positions", "types", "cells", "pbc", "offsets"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.labels.keys() == other.labels.keys()
    for key, label in one.labels.items():
        assert torch.equal(label.values, other.labels[key].values), key
        assert torch.equal(label.there, other.labels[key].there), key


def streamed(path: str, budget: float) -> Datasets:
    given = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": section(path, unit="eV"),
        "validation_set": 0.2,
    }
    return build_datasets(load_options(given), memory_budget=budget)


def test_frames_come_back_as_they_were(workplace: Path) -> None:
    ase.io.write("a.xyz", mixed())
    found = convert("a.xyz", Path("store"))
    assert found.n_structures == len(mixed()) and not found.left_out
    before = frames_of("a.xyz", None, "")
    after = Files().open("store", None, "").frames
    assert len(after) == len(before)
    for one, other in zip(before, after, strict=True):
        assert one.keys == other.keys
        for name in ("numbers", "positions", "cell", "pbc"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        for key in one.keys:
            np.testing.assert_array_equal(one.find(key), other.find(key))
        assert (one.fixed is None) == (other.fixed is None)


@pytest.mark.parametrize("size", [1, 700, 1 << 20])
def test_a_file_is_converted_in_pieces_as_at_once(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    ase.io.write("a.xyz", mixed())
    text = Path("a.xyz").read_text().replace("\n3\n", "\n\n3\n")  # a blank line now and then
    Path("a.xyz").write_text(text)
    monkeypatch.setattr(conversion, "TEXT", size)
    convert("a.xyz", Path("store"))
    monkeypatch.setattr(conversion, "TEXT", 1 << 30)
    convert("a.xyz", Path("whole"))
    index = [json.loads(Path(name, "index.json").read_text()) for name in ("store", "whole")]
    assert index[0]["fingerprint"] == index[1]["fingerprint"]


def test_labels_are_those_of_the_file_it_was_made_of(workplace: Path) -> None:
    frames = [labelled(k, pbc=k != 3) for k in range(20)]
    frames[4].calc.results.pop("forces")
    ase.io.write("a.xyz", frames)
    convert("a.xyz", Path("store"))
    options = {"unit": "eV", "forces": {"allow_missing": True}, "stress": True}
    one, other = (build(section(path, **options), 0.2) for path in ("a.xyz", "store"))
    assert one.splits == other.splits and one.info == other.info
    same(one.train, other.train)
    same(one.validation, other.validation)
    assert other.train.origin(2) == one.train.origin(2)


def test_several_files_and_their_names(workplace: Path) -> None:
    ase.io.write("a.xyz", [labelled(k) for k in range(3)])
    ase.io.write("b.xyz", [labelled(k) for k in range(3, 7)])
    convert(["a.xyz", "b.xyz"], Path("store"))
    file = Files().open("store", None, "")
    assert file.named([1, 4]) == "frame 1 of 'a.xyz', frame 1 of 'b.xyz'"


def test_what_cannot_be_an_array_is_left_out_and_said(workplace: Path) -> None:
    frames = [labelled(k) for k in range(3)]
    for k, atoms in enumerate(frames):
        atoms.info["growing"] = np.arange(k + 2.0)
        atoms.info["either"] = 1.5 if k else "text"
    ase.io.write("a.xyz", frames)
    found = convert("a.xyz", Path("store"))
    assert "differs from structure to structure" in found.left_out["growing"]
    assert "text in some structures" in found.left_out["either"]
    assert {"growing", "either"}.isdisjoint(Files().open("store", None, "").keys)


def test_whole_numbers_become_others_where_they_have_to(workplace: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    frames = [labelled(k, energy=None, forces=None, stress=None) for k in range(4)]
    for k, atoms in enumerate(frames):
        atoms.info["x"] = k if k < 3 else 0.5
    ase.io.write("a.xyz", frames)
    monkeypatch.setattr(conversion, "TEXT", 1)
    convert("a.xyz", Path("store"))
    assert [f.find("x") for f in Files().open("store", None, "").frames] == [0, 1, 2, 0.5]


def test_a_bad_structure_leaves_nothing_behind(workplace: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    frames = [labelled(k) for k in range(6)]
    frames[4].positions[1] = np.nan
    ase.io.write("a.xyz", frames)
    monkeypatch.setattr(conversion, "TEXT", 1)
    with pytest.raises(DataError, match=r"positions in frame 4 of 'a.xyz' are not finite"):
        convert("a.xyz", Path("store"))
    assert [path.name for path in Path().iterdir()] == ["a.xyz"]
    whole = [labelled(k) for k in range(6)]
    ase.io.write("a.xyz", whole)
    Path("a.xyz").write_text(Path("a.xyz").read_text()[:-200])  # in the last frame
    with pytest.raises(DataError, match=r"frame 5"):
        convert("a.xyz", Path("store"))
    whole[3].numbers[:], whole[3].positions[1] = 14, whole[3].positions[0]
    ase.io.write("a.xyz", whole)
    with pytest.raises(DataError, match=r"two atoms in one place \(structure 3 of 'a.xyz'"):
        convert("a.xyz", Path("store"))
    assert [path.name for path in Path().iterdir()] == ["a.xyz"]
    Path("full").mkdir()
    Path("full", "notes.txt").touch()
    with pytest.raises(OutputError, match="folder with files in it"):
        convert("a.xyz", Path("full"))


def test_damaged_data_sets(workplace: Path) -> None:
    ase.io.write("a.xyz", [labelled(k) for k in range(5)])
    convert("a.xyz", Path("store"))

    def broken(name: str, content: bytes) -> str:
        shutil.rmtree("copy", ignore_errors=True)
        shutil.copytree("store", "copy")
        Path("copy", name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            Files().open("copy", None, "here")
        assert str(caught.value).startswith("here: ")
        return str(caught.value)

    whole = Path("store", "positions.npy").read_bytes()
    assert "bytes where its header announces" in broken("positions.npy", whole[:-8])
    assert "cannot be read" in broken("positions.npy", b"")
    assert "cannot be read" in broken("index.json", b"{")
    assert "different lengths" in broken("numbers.npy", Path("store", "pbc.npy").read_bytes())
    index = json.loads(Path("store", "index.json").read_text())
    later = json.dumps({**index, "version": 99}).encode()
    assert "is of version 99" in broken("index.json", later)


@pytest.mark.parametrize("harm", ["cut off", "rewritten"])
def test_a_file_that_changes_under_a_reader(workplace: Path, harm: str) -> None:
    ase.io.write("a.xyz", [labelled(k) for k in range(40)])
    convert("a.xyz", Path("store"))
    train = streamed("store", 2000).train
    assert isinstance(train, StreamedStore)
    train.select(torch.tensor([0, 3]))
    path = Path("store", "positions.npy")
    content = path.read_bytes()
    with open(path, "r+b") as file:
        if harm == "cut off":
            file.truncate(len(content) // 2)
        else:
            file.seek(200)
            file.write(b"changed!")
    with pytest.raises(DataError, match=r"positions.npy' changed while it was being read"):
        train.select(torch.tensor([20, 30]))


def test_rows_are_gathered_across_gaps_and_out_of_order(tmp_path: Path) -> None:
    values = np.arange(4 * GAP, dtype=np.int64)
    np.save(tmp_path / "a.npy", values)
    array = Array(tmp_path / "a.npy", "")
    starts = np.array([200_000, 5, 5, 17, 100_000])
    stops = np.array([200_003, 9, 9, 17, 100_001])
    expected = np.concatenate([values[a:b] for a, b in zip(starts, stops, strict=True)])
    np.testing.assert_array_equal(array.gather(starts, stops), expected)
    assert array.gather(starts[:0], stops[:0]).shape == (0,)


def test_parts_of_a_streamed_set_are_those_of_one_in_memory(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atomtrain.data.streamed.OF_EACH", 2)
    frames = [labelled(k, n=2 + k % 4) for k in range(60)]
    frames[17].numbers[0] = 79  # an element that is rare
    ase.io.write("a.xyz", frames)
    convert("a.xyz", Path("store"))
    data, large = (streamed("store", budget) for budget in (1e9, 6000))
    assert isinstance(data.train, StructureStore) and isinstance(large.train, StreamedStore)
    assert data.splits == large.splits and data.info == large.info
    assert large.train.elements == data.train.elements
    assert torch.equal(large.train.n_atoms, data.train.n_atoms)
    some = torch.tensor([40, 3, 3, 11])
    same(large.train.select(some), data.train.select(some))
    assert 79 in large.train.sample.elements
    assert len(large.train.sample) < len(large.train)
    assert large.train.fingerprint != large.validation.fingerprint
    assert large.train.origin(5) == data.train.origin(5)
    assert any("stay on disk (memory_budget)" in note for note in large.notes)


def test_an_element_that_the_training_set_lacks_is_found_in_a_streamed_set(workplace: Path) -> None:
    frames = [labelled(k) for k in range(60)]
    convert_to(frames, "train")
    frames[31].numbers[0] = 79
    convert_to(frames, "other")
    given = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": section("train", unit="eV"),
        "validation_set": section("other", unit="eV"),
    }
    with pytest.raises(DataError, match=r"contains Au \(structure 31 of 'other.xyz'\)"):
        build_datasets(load_options(given), memory_budget=4000)


def convert_to(frames: list[Atoms], name: str) -> None:
    ase.io.write(f"{name}.xyz", frames)
    convert(f"{name}.xyz", Path(name))


def test_blocks_share_every_batch_among_processes(workplace: Path) -> None:
    n_atoms = torch.ones(1000, dtype=torch.int64)
    blocks = Blocks(size=25, at_once=8)
    batches = epoch_batches(n_atoms, 16, shuffled=(3, 0), blocks=blocks)
    order = torch.cat(batches)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert not torch.equal(
        order, torch.cat(epoch_batches(n_atoms, 16, shuffled=(3, 1), blocks=blocks))
    )
    for start in range(0, 1000, blocks.window):  # what is together comes from as many blocks
        together = order[start : start + blocks.window]
        assert len((together // blocks.size).unique()) == blocks.at_once
    for size in (2, 4, 8):  # each process has blocks of its own, of every batch an equal part
        window = [b for b in batches if int(b[0]) in order[: blocks.window].tolist()]
        owned = [torch.cat([b[r::size] for b in window]) // blocks.size for r in range(size)]
        owners = [set(part.tolist()) for part in owned]
        assert sum(map(len, owners)) == len(set().union(*owners))


def test_noise_of_a_structure_does_not_depend_on_what_is_read_with_it(workplace: Path) -> None:
    convert_to([labelled(k, n=2 + k % 4) for k in range(40)], "store")
    train = streamed("store", 3000).train
    noise = Noise({"noise 0.1": 0.1}, {}, seed=1, fixed=False)
    one = noise.draw(train.select(torch.tensor([3, 7, 21])), 2)["noise 0.1"]
    other = noise.draw(train.select(torch.tensor([7, 30])), 2)["noise 0.1"]
    place = train.n_atoms
    mine = one.unit[place[3] : place[3] + place[7]]
    assert torch.equal(mine, other.unit[: place[7]])
    later = noise.draw(train.select(torch.tensor([7, 30])), 3)["noise 0.1"]
    assert not torch.equal(later.unit, other.unit)


def test_options_become_options_that_read_data_sets(workplace: Path) -> None:
    ase.io.write("a.xyz", [labelled(k) for k in range(10)])
    Path("more").mkdir()
    ase.io.write("more/a.xyz", [labelled(k) for k in range(10, 14)])
    given = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": section("a.xyz", unit="eV", forces=True),
        "validation_set": section("more/a.xyz", unit="eV", forces=True),
    }
    found = convert_options(load_options(given), Path("stores"))
    assert [one.n_structures for one in found] == [10, 4]
    assert {path.name for path in Path("stores").iterdir()} == {"a", "a_1", "options.yaml"}
    before = build_datasets(load_options(given))
    after = build_datasets(load_options(Path("stores", "options.yaml")))
    same(before.train, after.train)  # type: ignore[arg-type]
    same(before.validation, after.validation)  # type: ignore[arg-type]


def test_folders_of_arrays_are_converted(workplace: Path) -> None:
    frames = [labelled(k, n=2 + k % 3) for k in range(6)]
    counts = np.cumsum([0] + [len(f) for f in frames])
    Path("arrays").mkdir()
    np.save("arrays/ns.npy", len(frames))
    np.save("arrays/na.npy", counts)
    for name, values in {
        "x": np.concatenate([f.positions for f in frames]),
        "c": np.stack([f.cell.array for f in frames]),
        "energy": np.array([f.get_potential_energy() for f in frames]),
        "energy_forces": np.concatenate([f.get_forces() for f in frames]),
    }.items():
        Path(f"arrays/{name}.bin").write_bytes(values.astype("<f4").tobytes())
    Path("arrays/a.bin").write_bytes(np.full(counts[-1], 14, dtype="<i4").tobytes())
    convert("arrays", Path("store"))
    assert Array(Path("store/positions.npy"), "").dtype == np.float32
    one, other = (build(section(path, unit="eV", forces=True), 0) for path in ("arrays", "store"))
    same(one.train, other.train)
