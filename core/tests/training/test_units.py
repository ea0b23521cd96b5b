"""What people are shown of targets: short names, no two alike."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from atomtrain.report.classification import write_confusions
from atomtrain.targets import DatasetInfo, Irrep, TargetInfo
from atomtrain.training.units import quantities, titles


def info(*targets: TargetInfo) -> DatasetInfo:
    return DatasetInfo("angstrom", (1,), {target.name: target for target in targets})


def energy(name: str, *gradients: str) -> TargetInfo:
    return TargetInfo(name, quantity="energy", unit="eV", gradients=gradients)


@pytest.mark.parametrize(
    ("targets", "shown"),
    [
        ([energy("energy", "forces", "strain")], ["energy", "forces", "stress"]),
        ([energy("mtt::e", "forces")], ["e", "e forces"]),
        (
            [energy("energy", "forces"), energy("mtt::energy", "forces")],
            ["energy", "forces", "mtt::energy", "mtt::energy forces"],
        ),
        (
            [energy("energy", "forces"), TargetInfo("mtt::forces", per_atom=True)],
            ["energy", "energy forces", "mtt::forces"],
        ),
        (
            [energy("mtt::a", "forces"), TargetInfo("mtt::a forces")],
            ["a", "mtt::a:forces", "mtt::a forces"],
        ),
        ([TargetInfo("mtt::a"), TargetInfo("own::a")], ["a", "own::a"]),
        (
            [TargetInfo("mtt::d", kind="spherical", irreps=(Irrep(0, 1, 1), Irrep(2, 1, 1)))],
            ["d", "d (l=0, s=1)", "d (l=2, s=1)"],
        ),
    ],
)
def test_titles(targets: list[TargetInfo], shown: list[str]) -> None:
    given = info(*targets)
    assert list(titles(given).values()) == shown
    names = [q.name.removesuffix(" (per atom)") for q in quantities(given)]
    assert names == shown


def test_files_of_two_targets_with_one_short_name(tmp_path: Path) -> None:
    names = ("energy", "mtt::energy")
    both = info(*(TargetInfo(name, kind="binary", classes=("a", "b")) for name in names))
    matrices = {name: np.full((2, 2), k) for k, name in enumerate(both.targets)}
    write_confusions(tmp_path, "test", matrices, both)
    for k, stem in enumerate(("energy", "mtt::energy")):
        with open(tmp_path / f"confusion_{stem}_test.csv", encoding="utf-8") as file:
            assert list(csv.reader(file))[1][1:] == [str(k)] * 2
