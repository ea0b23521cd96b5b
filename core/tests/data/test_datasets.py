"""Sections to data sets: several files, splits, elements, units, extra data, fingerprint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.frames import build, labelled, section

from atomtrain.data import build_datasets, fingerprint
from atomtrain.errors import DataError, OptionsError
from atomtrain.options import load_options
from atomtrain.runs.directory import write_splits


@pytest.fixture
def twenty(workplace: Path) -> Path:
    ase.io.write("a.xyz", [labelled(k) for k in range(20)])
    return workplace


def energies(store: Any) -> list[int]:
    return [int(e) for e in store.labels["energy"].values.flatten()]


def test_fractions_are_disjoint_complete_and_seeded(twenty: Path) -> None:
    data = build(section("a.xyz"), 0.2, test_set=0.1, seed=5)
    assert data.test is not None
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    assert [len(p) for p in parts.values()] == [14, 4, 2]
    assert sorted(e for p in parts.values() for e in energies(p)) == list(range(20))
    for name, part in parts.items():  # the energy of a frame is its number
        assert data.splits[name] == [energies(part)]
    again = build(section("a.xyz"), 0.2, test_set=0.1, seed=5)
    other = build(section("a.xyz"), 0.2, test_set=0.1, seed=6)
    assert again.splits == data.splits
    assert other.splits != data.splits


def test_counts_and_indices(twenty: Path) -> None:
    Path("test.txt").write_text("3\n17\n")
    data = build(section("a.xyz"), 5, test_set={"indices": "test.txt"})
    assert data.splits["test"] == [[3, 17]]
    assert len(data.validation) == 5
    assert not {3, 17} & {*energies(data.train), *energies(data.validation)}
    data = build(section("a.xyz"), {"indices": [0, 1]})
    assert energies(data.validation) == [0, 1]
    assert energies(data.train) == list(range(2, 20))
    assert data.test is None


def test_indices_of_a_section(twenty: Path) -> None:
    chosen = [19, 4, 7, 8, 12]
    data = build({**section("a.xyz"), "indices": chosen}, 2)
    assert sorted(energies(data.train) + energies(data.validation)) == sorted(chosen)
    # splits speak of frames of the file, also where only some of them are used
    assert data.splits["train"] == [energies(data.train)]
    assert data.train.origin(0) == f"structure {energies(data.train)[0]} of 'a.xyz'"


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (0.01, None, r"validation_set: 0.01 of 20 structures leaves nothing for the validation"),
        (21, None, "21 asked for, there are 20 structures"),
        (10, 10, "validation and test take all 20 structures, nothing is left to train on"),
        (
            {"indices": [3]},
            {"indices": [5, 3]},
            "structure 3 is in the validation set and in the test",
        ),
        ({"indices": [20]}, None, r"there is no structure 20 \(they are 0 to 19\)"),
        ({"indices": [2, 2]}, None, "some indices are given twice"),
    ],
)
def test_splits_that_cannot_be(twenty: Path, validation: Any, test: Any, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        build(section("a.xyz"), validation, **({"test_set": test} if test is not None else {}))


@pytest.mark.parametrize("nothing", [0, 0.0, {"indices": []}, {"indices": "none.txt"}])
def test_there_may_be_no_validation_set(twenty: Path, nothing: Any) -> None:
    Path("none.txt").write_text("\n")  # as a run writes it
    data = build(section("a.xyz"), nothing, test_set=0.1)
    assert len(data.train) == 18 and len(data.validation) == 0 and not data.validated
    assert data.sets["validation"] is None and data.splits["validation"] == [[]]
    assert "no validation set: the best model is the last one" in data.notes
    assert "18 training, 2 test" in data.statistics()[0]
    # or of one section only
    two = build([section("a.xyz"), section("a.xyz")], [nothing, 0.1])
    assert two.validated and len(two.validation) == 2 and two.splits["validation"][0] == []


def test_indices_count_in_the_file(twenty: Path) -> None:
    first = {**section("a.xyz"), "indices": list(range(10, 20))}
    data = build(first, {"indices": [0, 1, 2]}, test_set={"indices": [9, 5]})
    assert data.test is not None
    assert energies(data.train) == list(range(10, 20))
    assert energies(data.validation) == [0, 1, 2]
    assert energies(data.test) == [5, 9]
    assert data.splits == {"train": [[*range(10, 20)]], "validation": [[0, 1, 2]], "test": [[5, 9]]}
    assert "training set: structures 10 to 19 of 'a.xyz' (counted from 0)" in data.notes
    assert "validation set: structures 0 to 2 of 'a.xyz' (counted from 0)" in data.notes
    assert "test set: structures 5, 9 of 'a.xyz' (counted from 0)" in data.notes
    # a fraction is of what the section names, and never takes what the other set names
    data = build(first, 0.2, test_set={"indices": [3]})
    assert len(data.validation) == 2 and len(data.train) == 8 and data.splits["test"] == [[3]]
    assert sorted(energies(data.train) + energies(data.validation)) == list(range(10, 20))


def test_a_structure_is_not_trained_on_and_validated_on(twenty: Path) -> None:
    first = {**section("a.xyz"), "indices": list(range(10))}
    said = r"structures 8, 9 of the file are in the validation set and in training_set\.indices"
    with pytest.raises(OptionsError, match=said):
        build(first, {"indices": [8, 9, 12]})


def test_indices_of_several_files_and_sections(twenty: Path) -> None:
    for name, start in (("b-0.xyz", 100), ("b-1.xyz", 105)):
        ase.io.write(name, [labelled(start + k) for k in range(5)])
    second = {**section("b-*.xyz"), "indices": [0, 1, 2, 7]}
    both = [section("a.xyz"), second]
    data = build(both, [{"indices": [19]}, {"indices": [5, 9]}], test_set=[1, {"indices": [8]}])
    assert data.test is not None
    assert energies(data.validation) == [19, 105, 109]
    assert energies(data.train)[-4:] == [100, 101, 102, 107]
    assert energies(data.test)[1:] == [108]
    assert (
        "validation set: structures 19 of 'a.xyz', 5, 9 of 'b-0.xyz' and 1 more (counted from 0)"
        in (data.notes)
    )
    # a list of files, and one section with a file of its own beside another's indices
    second["systems"] = ["b-1.xyz", "b-0.xyz"]
    second["targets"]["energy"]["read_from"] = ["b-1.xyz", "b-0.xyz"]
    data = build(both, [section("a.xyz"), {"indices": [3]}])
    assert energies(data.validation) == [108, *range(20)]
    assert data.splits["validation"] == [None, [3]]


def test_written_splits_give_the_same_sets(twenty: Path) -> None:
    chosen = {**section("a.xyz"), "indices": [19, 4, 7, 8, 12, 0]}
    first = build(chosen, 2, test_set=0)
    write_splits(first.splits, Path("."))
    again = build(
        {**section("a.xyz"), "indices": "indices/train_0.txt"},
        {"indices": "indices/validation_0.txt"},
        test_set={"indices": "indices/test_0.txt"},
    )
    assert again.splits == first.splits and again.fingerprint == first.fingerprint
    # also where the section as a whole is what is trained on
    whole = build(section("a.xyz"), 0.2)
    shutil.rmtree("indices")
    write_splits(whole.splits, Path("."))
    again = build(section("a.xyz"), {"indices": "indices/validation_0.txt"})
    assert again.splits == {**whole.splits, "test": [None]}


def test_several_sections(twenty: Path) -> None:
    frames = [labelled(100 + k, n=2, stress=None) for k in range(10)]
    for atoms in frames:
        atoms.info["gap"] = 0.5
    ase.io.write("b.xyz", frames)
    second = {"systems": "b.xyz", "targets": {"energy": {}, "mtt::gap": {"key": "gap"}}}
    data = build([section("a.xyz"), second], 0.2)
    assert [len(s or []) for s in data.splits["validation"]] == [4, 2]
    assert set(data.info.targets) == {"energy", "mtt::gap"}
    assert data.info.targets["energy"].gradients == ("forces", "strain")
    train = data.train
    assert len(train) == 24
    for key, present in (("energy:strain", [True] * 16 + [False] * 8),
                         ("mtt::gap", [False] * 16 + [True] * 8)):  # fmt: skip
        mask = train.labels[key].mask
        assert mask is not None
        assert mask.all(1).tolist() == mask.any(1).tolist() == present
    assert train.labels["energy"].mask is None
    assert train.origin(20).endswith("of 'b.xyz'")
    assert "train: mtt::gap is masked for 16 of 24 structures" in data.notes


def test_sections_that_contradict_each_other(twenty: Path) -> None:
    parts = [section("a.xyz", unit="eV"), section("a.xyz", unit="kcal/mol")]
    with pytest.raises(OptionsError, match="described differently in two training sections"):
        build(parts)
    with pytest.raises(OptionsError, match="in the training set and in the validation set"):
        build(parts[0], parts[1])
    assert len(build(parts[0], section("a.xyz", unit="EV")).validation) == 20
    # files written for the peer name a validation file without repeating the unit
    assert len(build(parts[0], "a.xyz").validation) == 20


def test_length_units(twenty: Path) -> None:
    def unit(name: str) -> dict[str, Any]:
        systems = {"read_from": "a.xyz", "length_unit": name}
        return {"systems": systems, "targets": {"energy": {}}}

    assert build(unit("Angstrom")).info.length_unit == "angstrom"
    assert build([unit("A"), unit("angstrom")]).info.length_unit == "angstrom"
    assert build(unit("bohr")).info.length_unit == "bohr"
    with pytest.raises(OptionsError, match=r"length units differ .*\(angstrom, bohr\)"):
        build(unit("angstrom"), unit("bohr"))


def test_a_target_that_is_not_validated_is_warned_of(twenty: Path) -> None:
    other = {"systems": "a.xyz", "targets": {"energy/other": {"key": "energy"}}}
    data = build([section("a.xyz"), other], [0, 2])
    said = "there is no label of 'energy': the best model is chosen without it"
    assert f"validation set: {said}" in data.warnings
    assert not any("chosen without" in warning for warning in build(section("a.xyz"), 0).warnings)


def test_validation_without_labels(twenty: Path) -> None:
    frames = [Atoms("Si", cell=[3, 3, 3], pbc=True) for _ in range(3)]
    frames[0].info["e"] = 1.0
    ase.io.write("some.xyz", frames)
    with pytest.raises(DataError, match=r"the validation set has no label of any target .*energy"):
        build(section("some.xyz", key="e", allow_missing=True), {"indices": [1, 2]})
    other = {**section("some.xyz", key="e", allow_missing=True), "indices": [1, 2]}
    with pytest.raises(DataError, match="has no 'e' in any structure of this section"):
        build(section("a.xyz"), other)


def test_elements(twenty: Path) -> None:
    copper = [Atoms("Cu", cell=[3, 3, 3], pbc=True, info={"e": 1.0}) for _ in range(4)]
    ase.io.write("copper.xyz", copper)
    message = r"validation set contains Cu \(structure 0 of 'copper.xyz'\), which the training set"
    with pytest.raises(DataError, match=message):
        build(section("a.xyz"), section("copper.xyz", key="e"))
    both = [section("copper.xyz", key="e"), section("a.xyz")]
    assert build(both, [section("a.xyz")]).info.atomic_types == (14, 29)
    given = build(section("a.xyz"), architecture={"name": "any", "atomic_types": [29, 14, 1]})
    assert given.info.atomic_types == (1, 14, 29)
    with pytest.raises(DataError, match=r"contains Si .* architecture.atomic_types lacks"):
        build(section("a.xyz"), architecture={"name": "any", "atomic_types": [29]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.set_cell([0, 0, 0]), "is periodic but has no cell along a periodic"),
        (lambda a: a.set_cell([4, 0, 5]), "is periodic but has no cell along a periodic"),
        (lambda a: a.set_cell([[1, 1, 0], [2, 2, 0], [0, 0, 1]]), "or a flat one"),
        (lambda a: (a.set_pbc([1, 1, 0]), a.set_cell([[1, 1, 0], [2, 2, 0], [0, 0, 1]])), "flat"),
        (lambda a: a.positions.__setitem__((1, 2), np.nan), "positions in frame 2 .* not finite"),
        (lambda a: a.numbers.__setitem__(0, 0), "frame 2 of .* has atoms of unknown element"),
    ],
)
def test_structures_that_cannot_be(workplace: Path, change: Any, message: str) -> None:
    frames = [labelled(k, stress=None, forces=None) for k in range(4)]
    change(frames[2])
    ase.io.write("a.traj", frames)
    with pytest.raises(DataError, match=message) as error:
        build(section("a.traj"))
    assert "frame 2 of 'a.traj'" in str(error.value)


def test_cell_vectors_that_are_not_periodic_are_dropped(workplace: Path) -> None:
    ase.io.write("a.xyz", [labelled(k, pbc=[True, False, True]) for k in range(4)])
    cells = build(section("a.xyz")).train.cells
    assert bool((cells[:, 1] == 0).all())
    assert bool((cells[:, [0, 2]].norm(dim=2) > 0).all())


def test_a_slab_needs_no_third_vector(workplace: Path) -> None:
    frames = [labelled(k, pbc=[True, True, False], stress=None) for k in range(4)]
    for atoms in frames:
        atoms.cell[2] = 0
        atoms.calc.atoms = atoms.copy()  # results belong to the changed structure
    ase.io.write("a.traj", frames)
    data = build(section("a.traj"))
    assert data.train.pbc.tolist() == [[True, True, False]] * 3


def test_extra_data(twenty: Path) -> None:
    frames = ase.io.read("a.xyz", ":")
    for k, atoms in enumerate(frames):
        atoms.info["charge"] = float(k)
        atoms.arrays["weights"] = np.full(3, float(k))
    ase.io.write("b.xyz", frames)
    extra = {"charge": {}, "mtt::w": {"key": "weights", "sample_kind": "atom"}}
    full = {**section("b.xyz"), "extra_data": extra}
    data = build([full, full], 4)
    for store in (data.train, data.validation):
        assert store.extra["charge"].values.flatten().tolist() == energies(store)
        per_structure = store.extra["mtt::w"].values.reshape(-1, 3)
        assert torch.equal(per_structure[:, 0], store.labels["energy"].values[:, 0])
    message = r"extra data 'charge' must be given, .*'a.xyz' \(validation set\) differs"
    with pytest.raises(OptionsError, match=message):
        build(full, section("a.xyz"))


def test_nothing_to_train_on(twenty: Path) -> None:
    with pytest.raises(OptionsError, match="training_set: there is no target to train on"):
        build({"systems": "a.xyz"})


def test_no_label_is_left(workplace: Path) -> None:
    frames = [labelled(k, energy=float(k) if k in (1, 2) else None) for k in range(6)]
    ase.io.write("a.xyz", frames)
    with pytest.raises(DataError, match="target 'energy': not one label is left in the training"):
        build(section("a.xyz", allow_missing=True), {"indices": [1, 2]})


def test_fingerprint(twenty: Path) -> None:
    data = build(section("a.xyz"))
    same = build(section("a.xyz"))
    assert data.fingerprint == same.fingerprint == fingerprint(data.train)
    assert build(section("a.xyz"), seed=1).fingerprint != data.fingerprint
    assert build(section("a.xyz", forces=False)).fingerprint != data.fingerprint
    same.train.positions[0, 0] += 1e-12
    assert fingerprint(same.train) != data.fingerprint


def test_fingerprint_tells_missing_from_zero(workplace: Path) -> None:
    def of(energy: float | None) -> str:
        frames = [labelled(k, energy=energy if k == 1 else 1.0) for k in range(4)]
        ase.io.write("a.xyz", frames)
        allowed = section("a.xyz", allow_missing=True, forces=False, stress=False)
        return build(allowed, {"indices": [3]}).fingerprint

    assert of(0.0) != of(None)


def test_masks_from_extra_data(tmp_path: Path) -> None:
    """Entries of a target where its mask is 0 do not count; a mask of another shape is refused."""
    frames = [Atoms("HO", positions=[[0, 0, 0], [0, 0, 1.0]]) for _ in range(6)]
    for k, atoms in enumerate(frames):
        atoms.info["dos"] = np.arange(3.0) + k
        atoms.info["mask"] = np.array([1, 0, 1])
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    text = """
architecture: {name: x}
training_set:
  systems: %s
  targets: {"mtt::dos": {key: dos, num_subtargets: 3}}
  extra_data: {"mtt::dos_mask": {key: mask, num_subtargets: 3}}
validation_set: 0.5
"""
    path = tmp_path / "options.yaml"
    path.write_text(text % (tmp_path / "a.xyz"))
    label = build_datasets(load_options(path)).train.labels["mtt::dos"]
    assert label.mask is not None and label.mask[0].tolist() == [True, False, True]
    for k, atoms in enumerate(frames):
        atoms.info["mask"] = float(k != 2)
        atoms.info["two"] = np.ones(2)
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    one = path.read_text().replace("mask, num_subtargets: 3", "mask")  # one entry for all three
    path.write_text(one.replace("validation_set: 0.5", "validation_set: {indices: [0]}"))
    label = build_datasets(load_options(path)).train.labels["mtt::dos"]
    assert label.mask is not None and sorted(label.mask.sum(1).tolist())[0] == 0
    path.write_text(one.replace("key: mask", "key: musk"))
    with pytest.raises(DataError, match=r"extra_data.mtt::dos_mask: .* has no 'musk'"):
        build_datasets(load_options(path))
    path.write_text(one.replace("key: mask", "key: two, num_subtargets: 2"))
    with pytest.raises(DataError, match=r"the mask has shape \(6, 2\), the target \(6, 3\)"):
        build_datasets(load_options(path))
