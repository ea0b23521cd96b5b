"""Space groups, point groups and crystal systems: spglib's answers, tables and tolerances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import spglib
from ase.build import bulk, molecule
from helpers.tasks import frame

from atomtrain.options import DatasetSection, target_info
from atomtrain.targets import TargetInfo
from atomtrain.tasks import task_of
from atomtrain_symmetry.tasks import LAST_OF_POINT_GROUP, LAST_OF_SYSTEM, space_group


def info(kind: Any) -> TargetInfo:
    section = DatasetSection.model_validate(
        {"systems": "x.xyz", "targets": {"mtt::t": {"type": kind}}}
    )
    return target_info("mtt::t", section.targets["mtt::t"])


WATER = frame(molecule("H2O"))


def test_symmetry() -> None:
    for atoms, number, point_group, system in (
        (bulk("C", "diamond", a=3.57), 227, "m-3m", "cubic"),
        (bulk("Mg", "hcp", a=3.2, c=5.2), 194, "6/mmm", "hexagonal"),
        (bulk("ZnS", "zincblende", a=5.4), 216, "-43m", "cubic"),
        (bulk("In", "bct", a=3.25, c=4.95), 139, "4/mmm", "tetragonal"),
    ):
        structure = frame(atoms)
        assert space_group(structure, 0.01) == number
        for kind, name in (
            ("spacegroup", str(number)),
            ("pointgroup", point_group),
            ("crystal_system", system),
        ):
            target = info(kind)
            row = task_of(kind).row(None, target, structure)
            assert target.classes[int(row.argmax())] == name
            given = task_of(kind).row(name, target, structure)
            np.testing.assert_array_equal(given, row)
    shaken = bulk("C", "diamond", a=3.57, cubic=True)
    shaken.rattle(0.05, seed=0)
    assert space_group(frame(shaken), 0.01) == 1
    assert space_group(frame(shaken), 0.5) == 227  # the tolerance counts
    with pytest.raises(ValueError, match="not periodic in all directions"):
        space_group(WATER, 0.01)


@pytest.mark.parametrize(
    ("precise", "rough", "names"),
    [
        ({"spacegroup": {"symprec": 0.01}}, {"spacegroup": {"symprec": 0.5}}, ("1", "227")),
        ({"pointgroup": {"symprec": 0.01}}, {"pointgroup": {"symprec": 0.5}}, ("1", "m-3m")),
        ({"crystal_system": {"symprec": 0.01}}, {"crystal_system": {"symprec": 0.5}},
         ("triclinic", "cubic")),
    ],
)  # fmt: skip
def test_tolerance_of_symmetry(precise: Any, rough: Any, names: tuple[str, str]) -> None:
    shaken = bulk("C", "diamond", a=3.57, cubic=True)
    shaken.rattle(0.05, seed=0)
    for said, name in zip((precise, rough), names, strict=True):
        target = info(said)
        row = task_of(target.kind).row(None, target, frame(shaken))
        assert target.classes[int(row.argmax())] == name


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING")
def test_tables_of_symmetry_are_spglibs() -> None:
    seen = set()
    for hall in range(1, 531):
        found = spglib.get_spacegroup_type(hall)
        group = next(n for n, last in LAST_OF_POINT_GROUP.items() if found.number <= last)
        assert group == found.pointgroup_international
        seen.add(found.number)
    assert seen == set(range(1, 231))
    ends = list(LAST_OF_POINT_GROUP.values())
    assert set(LAST_OF_SYSTEM.values()) <= set(ends) and len(ends) == 32
