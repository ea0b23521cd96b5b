"""From the word of a target's ``type`` to its task: the core's own first, then those of packages."""

from __future__ import annotations

from functools import lru_cache

from atomtrain.contract import ComponentSpec, components
from atomtrain.errors import PluginError
from atomtrain.tasks.base import Task
from atomtrain.tasks.classification import Binary, Classes
from atomtrain.tasks.denoising import Denoising
from atomtrain.tasks.regression import Cartesian, Scalar, Spherical

_CORE: dict[str, Task] = {
    cls.kind: cls() for cls in (Scalar, Cartesian, Spherical, Binary, Classes, Denoising)
}
CORE_KINDS = tuple(_CORE)
"""Kinds the core has a task for."""
IN_EXTRAS = dict.fromkeys(("spacegroup", "pointgroup", "crystal_system"), "symmetry")
"""Kinds that come with an extra of the core (``pip install 'atomtrain[symmetry]'``), by kind."""


def known_kinds() -> list[str]:
    """All kinds there are, without importing the packages that bring some."""
    return [*CORE_KINDS, *components("register_tasks")]


def find_task(kind: str) -> Task | None:
    """The task of a kind, or None. Raises PluginError for one that a package spoils."""
    if kind in _CORE:
        return _CORE[kind]
    spec = components("register_tasks").get(kind)
    return None if spec is None else _task_of_package(spec)


@lru_cache(maxsize=64)
def _task_of_package(spec: ComponentSpec) -> Task:
    """The task behind a spec, made once: it is asked for in every epoch."""
    task = spec.load()
    if isinstance(task, type):
        task = task()
    if not isinstance(task, Task) or task.kind != spec.name:
        raise PluginError(
            f"the task '{spec.name}' that an installed package registers must be a subclass of "
            f"atomtrain.tasks.Task with kind = '{spec.name}', not {type(task).__name__}"
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


def task_for(declared: str | None, default: str, num_subtargets: int) -> Task:
    """The task of a target whose options say ``declared``, or nothing: then it is the ``default``.

    Several scalars are classes where these are the default: metatrain's classifier has its probabilities
    written so.
    """
    other = task_of(default)
    several = isinstance(find_task(declared or default), Scalar) and num_subtargets > 1
    return other if declared is None or (several and other.classification) else task_of(declared)
