"""Splits that keep together what belongs together: groups, compositions, stretches of a trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from atomtrain.api import convert
from atomtrain.data import Datasets, build_datasets
from atomtrain.errors import OptionsError
from atomtrain.options import load_options

N = 100


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of groups of five, and of four compositions."""
    rng = np.random.default_rng(1)
    frames = []
    for k in range(N):
        symbols = ["HHO", "HOO", "HHC", "CO"][k * 4 // N]
        atoms = Atoms(symbols, rng.normal(size=(len(symbols), 3)) * 3)
        atoms.info["config"] = f"run {k // 5}"
        atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()))
        frames.append(atoms)
    path = tmp_path_factory.mktemp("splits") / "a.xyz"
    ase.io.write(path, frames)
    return path


def built(read_from: Any, validation: Any, test: Any = (), seed: int = 0) -> Datasets:
    options = {
        "seed": seed,
        "architecture": {"name": "soap-bpnn", "atomic_types": ["H", "C", "O"]},
        "training_set": {
            "systems": {"read_from": read_from},
            "targets": {"energy": {"unit": "eV"}},
        },
        "validation_set": validation,
        "test_set": list(test),
    }
    return build_datasets(load_options(options))


def sets(data: Datasets) -> dict[str, set[int]]:
    return {name: set(some[0] or ()) for name, some in data.splits.items()}


def test_groups_stay_together(file: Path) -> None:
    by = {"fraction": 0.2, "by": "group", "key": "config"}
    found = sets(built(str(file), by, [by]))
    groups = {name: {k // 5 for k in frames} for name, frames in found.items()}
    assert [len(found[name]) for name in ("train", "validation", "test")] == [60, 20, 20]
    assert not groups["train"] & groups["validation"] and not groups["test"] & groups["train"]
    assert not groups["test"] & groups["validation"]
    assert found == sets(built(str(file), by, [by]))
    assert found != sets(built(str(file), by, [by], seed=1))


def test_compositions_stay_together(file: Path) -> None:
    found = sets(built(str(file), {"fraction": 0.25, "by": "composition"}))
    assert len({k * 4 // N for k in found["validation"]}) == 1 and len(found["validation"]) == 25
    # none is small enough for the fraction: the smallest
    assert len(sets(built(str(file), {"fraction": 0.02, "by": "composition"}))["validation"]) == 25


def test_blocks_have_gaps_around_them(file: Path) -> None:
    found = sets(built(str(file), {"fraction": 0.1, "by": "block", "gap": 2}))
    held, train = sorted(found["validation"]), found["train"]
    assert len(held) == 10 and np.sum(np.diff(held) > 1) <= 1
    assert min(abs(k - j) for k in held for j in train) == 3
    assert len(train) < 90


def test_blocks_do_not_cross_files(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.xyz"
    ase.io.write(other, ase.io.read(file, ":13"))
    found = sets(built([str(file), str(other)], {"fraction": 0.1, "by": "block"}))
    assert sum(map(len, found.values())) == N + 13


def test_random_is_what_a_fraction_is(file: Path) -> None:
    assert sets(built(str(file), {"fraction": 0.1})) == sets(built(str(file), 0.1))


@pytest.mark.parametrize("by", ["group", "composition", "block"])
def test_data_sets_on_disk_are_split_alike(file: Path, tmp_path: Path, by: str) -> None:
    convert([str(file)], tmp_path / "store")
    split = {"fraction": 0.2, "by": by, **({"key": "config"} if by == "group" else {})}
    assert sets(built(str(tmp_path / "store"), split)) == sets(built(str(file), split))


@pytest.mark.parametrize(
    "split, words",
    [
        ({"fraction": 0.1, "by": "group"}, "by: groups need a key"),
        ({"fraction": 0.1, "by": "block", "key": "config"}, "key: only groups have one"),
        ({"fraction": 0.1, "by": "composition", "gap": 2}, "gap: only blocks have one"),
        ({"fraction": 0.1, "by": "blocks"}, "block"),
        ({"fraction": 1.5, "by": "block"}, "fraction"),
        ({"fraction": 0.1, "by": "group", "key": "confg"}, "did you mean 'config'"),
        ({"fraction": 0.1, "by": "block", "gap": 200}, "gap around their blocks, nothing is left"),
    ],
)
def test_splits_that_cannot_be(file: Path, split: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError) as error:
        built(str(file), split)
    assert words in str(error.value)


def test_one_group_cannot_be_split(file: Path, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "one.xyz", ase.io.read(file, ":20"))
    with pytest.raises(OptionsError, match="all 20 structures belong together"):
        built(str(tmp_path / "one.xyz"), {"fraction": 0.1, "by": "composition"})


def test_a_split_is_meant_for_each_training_section(file: Path) -> None:
    section = {"systems": str(file), "targets": {"energy": {"unit": "eV"}}}
    options = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": [
            {**section, "indices": list(range(50))},
            {**section, "indices": list(range(50, 100))},
        ],
        "validation_set": {"fraction": 0.1, "by": "block"},
    }
    found = build_datasets(load_options(options)).splits["validation"]
    assert [len(some or ()) for some in found] == [4, 4]


def test_a_random_split_of_a_trajectory_is_warned_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    start, drift = 2 * rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    walk = [start + 0.02 * k * drift + 0.1 * np.sin(0.1 * k + drift) for k in range(60)]
    rattled = [start + 0.05 * rng.normal(size=(8, 3)) for _ in range(60)]
    # sorted, yet independent of one another
    sorted_ = [start + (0.02 + 0.2 * (k // 20)) * rng.normal(size=(8, 3)) for k in range(60)]
    block = {"fraction": 0.1, "by": "block"}
    for places, split, warned in (
        (walk, 0.1, True),
        (walk, {"fraction": 0.1}, True),
        (walk, block, False),
        (walk, 0, False),
        (rattled, 0.1, False),
        (sorted_, 0.1, False),
    ):
        frames = [Atoms("CCCCCOOO", r) for r in places]
        for atoms in frames:
            atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()))
        ase.io.write(tmp_path / "a.xyz", frames)
        found = built(str(tmp_path / "a.xyz"), split).warnings
        said = [text for text in found if "follow one another closely" in text]
        assert len(said) == warned
        assert all("by: block" in text and "a.xyz'" in text for text in said)
