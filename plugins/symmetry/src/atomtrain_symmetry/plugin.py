"""What atomtrain asks. Imports neither spglib nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atomtrain.contract import ComponentSpec, hookimpl


def _space_group() -> Any:
    from atomtrain_symmetry.tasks import SpaceGroup

    return SpaceGroup


def _point_group() -> Any:
    from atomtrain_symmetry.tasks import PointGroup

    return PointGroup


def _crystal_system() -> Any:
    from atomtrain_symmetry.tasks import CrystalSystem

    return CrystalSystem


@hookimpl
def register_tasks() -> Iterable[ComponentSpec]:
    """Three kinds of targets, each of the classes of a crystal's symmetry."""
    yield ComponentSpec("spacegroup", "one of the 230 space groups, by number", _space_group)
    yield ComponentSpec("pointgroup", "one of the 32 crystallographic point groups", _point_group)
    yield ComponentSpec("crystal_system", "one of the seven crystal systems", _crystal_system)
