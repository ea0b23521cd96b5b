"""Several files as one: lists, wildcards; what is said names the true file and the frame in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from helpers.formats import TARGETS, frames, read, same, write_store, write_xyz
from helpers.frames import build, labelled, section

from atomtrain.data import Files
from atomtrain.errors import DataError, OptionsError


def write(*names: str, **results: Any) -> None:
    """Three structures in each file, their energies 0, 1, 2, ... over all of them."""
    for k, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        ase.io.write(name, [labelled(3 * k + i, **results) for i in range(3)])


@pytest.mark.parametrize(
    "read_from",
    [
        ["d/a.xyz", "d/b.traj", "c.db"],
        ["d/*", "c.db"],
        ["d/a.xyz", "d/[b].*", "c.db"],
        ["**/?.xyz", "d/b.traj", "c.db"],
    ],
)
def test_lists_and_wildcards(workplace: Path, read_from: list[str]) -> None:
    write("d/a.xyz", "d/b.traj", "c.db")
    files = Files()
    file = files.open(read_from, None, "here")
    assert [frame.find("energy") for frame in file.frames] == list(range(9))
    assert file.files == ["d/a.xyz", "d/b.traj", "c.db"]
    assert [file.origin(k) for k in (0, 2, 3, 8)] == [(0, 0), (0, 2), (1, 0), (2, 2)]
    assert files.paths == {Path(name).resolve() for name in file.files}
    assert files.open(read_from, None, "there") is file


def test_wildcards_are_sorted(workplace: Path) -> None:
    write("b.xyz", "a.xyz", "c.traj")
    assert [f.find("energy") for f in Files().structures("*.xyz", None, "here").frames] == [
        3,
        4,
        5,
        0,
        1,
        2,
    ]


def test_a_file_of_that_name_is_meant(workplace: Path) -> None:
    write("a1.xyz", "a[1].xyz", "a*.xyz")
    for k, name in ((0, "a1.xyz"), (1, "a[1].xyz"), (2, "a*.xyz")):
        file = Files().open(name, None, "here")
        assert file.files == [name]
        assert file.frames[0].find("energy") == 3 * k


def test_one_match_is_that_file(workplace: Path) -> None:
    write_xyz([labelled(0)], "a.xyz")
    assert Files().open(["*.xyz"], None, "here").path == "a.xyz"


@pytest.mark.parametrize(
    ("read_from", "message"),
    [
        ("none*.xyz", r"^here: no file matches 'none\*.xyz' \(working directory: .*; correct"),
        (["a.xyz", "none?.xyz"], r"^here: no file matches 'none\?.xyz'"),
        (["a.xyz", "none.xyz"], r"^here: the file 'none.xyz' does not exist"),
        (["a.xyz", "a.xyz"], r"^here: 'a.xyz' is given twice; .*name it once"),
        (["a.xyz", "./a.xyz"], r"^here: './a.xyz' is given twice \(it is 'a.xyz' too\)"),
        (["*.xyz", "b.xyz"], r"^here: 'b.xyz' is given twice"),
        (["a.xyz", "d.zip"], r"^here: 'd.zip' is a zip archive, but only files .* frame by frame"),
        (["a.xyz", "d_energy.mts"], r"^here: 'd_energy.mts' is a file of maps, .*of its own"),
        (["a.xyz", "d"], r"^here: 'd' is a folder of arrays"),
        (["a.xyz", "e"], r"^here: 'e' is a directory"),
    ],
)
def test_what_cannot_be_several(workplace: Path, read_from: Any, message: str) -> None:
    write_xyz(frames(), "a.xyz")
    write("b.xyz")
    store = read("a.xyz", **TARGETS)
    for output in ("d.zip", "d/", "d.mts"):
        write_store(store, output)
    Path("e").mkdir()
    with pytest.raises(DataError, match=message):
        Files().open(read_from, None, "here")


def test_training_on_several_files(workplace: Path) -> None:
    write("d/a.xyz", "d/b.xyz", "e.xyz")
    systems = ["d/*.xyz", "e.xyz"]
    data = build(
        {"systems": systems, "targets": {"energy": {"forces": True}}},
        {"indices": [1, 5, 6]},
    )
    validation = data.validation
    assert [validation.origin(k) for k in range(3)] == [
        "structure 1 of 'd/a.xyz'",
        "structure 2 of 'd/b.xyz'",
        "structure 0 of 'e.xyz'",
    ]
    assert validation.labels["energy"].values.squeeze().tolist() == [1, 5, 6]
    # numbers over all files, as 'indices' of the options takes them
    assert data.splits["validation"] == [[1, 5, 6]]
    assert data.splits["train"] == [[0, 2, 3, 4, 7, 8]]
    again = build({"systems": systems, "targets": {"energy": {}}, "indices": [1, 5, 6]}, 1)
    assert sorted([*again.splits["train"][0], *again.splits["validation"][0]]) == [1, 5, 6]


def test_wildcards_in_short_spellings(workplace: Path) -> None:
    write("d/a.xyz", "d/b.xyz")
    assert len(build("d/*.xyz")) == 6
    assert len(build({"systems": ["d/a.xyz", "d/b.xyz"], "targets": {"energy": {}}})) == 6


def test_labels_in_several_files_of_their_own(workplace: Path) -> None:
    write("a.xyz", "b.xyz", energy=None, forces=None, stress=None)
    write("e/a.xyz", "e/b.xyz")
    energy = {"read_from": "e/*.xyz", "forces": ["e/a.xyz", "e/b.xyz"], "stress": "e/*.xyz"}
    store = build(section("?.xyz", **energy), 1).train
    assert set(store.labels) == {"energy", "energy:forces", "energy:strain"}
    expected = [labelled(int(k)).calc.results["forces"] for k in store.labels["energy"].values]
    found = store.labels["energy:forces"].values.numpy()
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-7)

    ase.io.write("e/b.xyz", [labelled(3, n=4), labelled(4), labelled(5)])
    with pytest.raises(DataError, match=r"energy: frame 0 of 'e/b.xyz' has other atoms"):
        build(section("?.xyz", **energy), 1)


def test_messages_name_the_true_file(workplace: Path) -> None:
    write("a.xyz")
    ase.io.write("b.xyz", [labelled(0), labelled(1, energy=None, forces=None, stress=None)])
    with pytest.raises(DataError, match=r"in 1 of 5 structures \(frame 1 of 'b.xyz'\)"):
        build(section("*.xyz"))
    ase.io.write("b.xyz", [labelled(0), labelled(1, energy=np.nan)])
    with pytest.raises(DataError, match=r"NaN or infinite in frame 1 of 'b.xyz'; remove"):
        build(section("*.xyz"))
    broken = labelled(1)
    broken.arrays["q"] = np.zeros((3, 2))
    ase.io.write("b.xyz", [labelled(0), broken])
    target = {"mtt::q": {"key": "q", "sample_kind": "atom", "allow_missing": True}}
    with pytest.raises(DataError, match=r"'q' of frame 1 in 'b.xyz' does not fit"):
        build({"systems": "*.xyz", "targets": target})
    flat = labelled(1)
    flat.cell = np.zeros((3, 3))
    ase.io.write("b.xyz", [labelled(0), flat])
    with pytest.raises(DataError, match=r"frame 1 of 'b.xyz' is periodic but has no cell"):
        build(section("*.xyz"))


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ([], "at least 1"),
        ([1], "systems.read_from"),
        ({"read_from": []}, "systems.read_from: expected at least 1 entry"),
        ({"read_from": ["a.xyz", ""]}, "systems.read_from"),
        ({"read_from": 3}, r"systems.read_from: expected text or a list, got 3"),
    ],
)
def test_options_that_are_no_paths(workplace: Path, systems: Any, message: str) -> None:
    write("a.xyz")
    with pytest.raises(OptionsError, match=message):
        build({"systems": systems, "targets": {"energy": {}}})


def test_several_files_of_every_target(workplace: Path) -> None:
    """What is in several files is what is in one."""
    made = frames()
    write_xyz(made)
    truth = read(**TARGETS)
    write_xyz(made[:1], "b0.xyz")
    write_xyz(made[1:], "b1.xyz")
    found = read("b?.xyz", **TARGETS)
    for key, label in truth.labels.items():
        same(found.labels[key], label)
