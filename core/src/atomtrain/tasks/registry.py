"""From the word of a target's ``type`` to its task: the core's own first, then those of packages."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from atomtrain.errors import PluginError

if TYPE_CHECKING:
    from atomtrain.tasks.base import Task  # which needs the options, which need this module

CORE_KINDS = (
    "scalar",
    "cartesian",
    "spherical",
    "binary",
    "classes",
    "spacegroup",
    "pointgroup",
    "crystal_system",
    "denoising",
)
"""Kinds the core has a task for."""


@cache
def _core() -> dict[str, Task]:
    from atomtrain.tasks.classification import Binary, Classes
    from atomtrain.tasks.denoising import Denoising
    from atomtrain.tasks.regression import Cartesian, Scalar, Spherical
    from atomtrain.tasks.symmetry import CrystalSystem, PointGroup, SpaceGroup

    tasks: tuple[Task, ...] = (
        Scalar(),
        Cartesian(),
        Spherical(),
        Binary(),
        Classes(),
        SpaceGroup(),
        PointGroup(),
        CrystalSystem(),
        Denoising(),
    )
    return {task.kind: task for task in tasks}


def known_kinds() -> list[str]:
    """All kinds there are, without importing the packages that bring some."""
    from atomtrain.contract import components

    return [*CORE_KINDS, *components("register_tasks")]


def find_task(kind: str) -> Task | None:
    """The task of a kind, or None. Raises PluginError for one that a package spoils."""
    if kind in CORE_KINDS:
        return _core()[kind]
    from atomtrain.contract import components
    from atomtrain.tasks.base import Task

    spec = components("register_tasks").get(kind)
    if spec is None:
        return None
    task = spec.load()
    if isinstance(task, type):
        task = task()
    if not isinstance(task, Task) or task.kind != kind:
        raise PluginError(
            f"the task '{kind}' that an installed package registers must be a subclass of "
            f"atomtrain.tasks.Task with kind = '{kind}', not {type(task).__name__}"
        )
    return task


def task_of(kind: str) -> Task:
    """The task of a kind that is known to exist. Raises PluginError if its package is gone."""
    task = find_task(kind)
    if task is None:
        raise PluginError(
            f"no installed package knows targets of type '{kind}' (there are: "
            f"{', '.join(known_kinds())}); install the one this was trained with"
        )
    return task
