"""What component packages offer: small frozen descriptions that load their code when used."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pluggy

from atomtrain.contract import catalog
from atomtrain.contract.hookspecs import PROJECT, ArchitectureHooks, ComponentHooks
from atomtrain.contract.loading import import_plugin
from atomtrain.errors import PluginError, nearest


@dataclass(frozen=True)
class ComponentSpec:
    """A dataset reader, task, loss or observer.

    ``load()`` imports and returns the implementation; it runs only when the options name ``name``.
    """

    name: str
    summary: str
    load: Callable[[], Any]


def components(hook: str) -> dict[str, ComponentSpec]:
    """What all component packages offer to ``hook`` (``register_losses``, ...), by name.

    A package that fails is left out with a warning (an error under ATOMTRAIN_STRICT_PLUGINS=1), and
    so is a name that two packages offer.
    """
    found, problems = _offered(hook)
    for message, error in problems:
        if os.environ.get("ATOMTRAIN_STRICT_PLUGINS") == "1":
            raise PluginError(message) from error
        warnings.warn(message, stacklevel=2)
    return found


def component(hook: str, name: str) -> ComponentSpec:
    """The component that ``hook`` offers under ``name``.

    Raises PluginError if there is none: with the nearest name or the package to install, and with
    what is wrong with packages that failed, one of which may be the one that has it.
    """
    found, problems = _offered(hook)
    if name in found:
        return found[name]
    what = _KINDS.get(hook, "component")
    near = nearest(name, found)
    if near:
        remedy = f"did you mean '{near}'?"
    else:
        distribution = catalog.KNOWN_DISTRIBUTIONS.format(name=catalog.normalise(name))
        remedy = f"such come in packages: try 'pip install {distribution}'"
    have = f" (installed: {', '.join(found)})" if found else ""
    message = "; ".join([f"there is no {what} '{name}'{have}; {remedy}", *(m for m, _ in problems)])
    raise PluginError(message) from (problems[0][1] if problems else None)


_KINDS = {
    "register_dataset_readers": "reader",
    "register_tasks": "task",
    "register_losses": "loss",
    "register_observers": "observer",
}


def _offered(
    hook: str,
) -> tuple[dict[str, ComponentSpec], list[tuple[str, Exception | None]]]:
    """What is offered, and what went wrong on the way: a message and its cause."""
    found: dict[str, ComponentSpec] = {}
    origins: dict[str, list[str]] = {}
    problems: list[tuple[str, Exception | None]] = []
    for installed in catalog.installed(catalog.COMPONENTS) + catalog.architectures():
        try:
            manager = pluggy.PluginManager(PROJECT)
            manager.add_hookspecs(ArchitectureHooks)
            manager.add_hookspecs(ComponentHooks)
            manager.register(import_plugin(installed), installed.name)
            manager.check_pending()
            # a generator raises only when it is consumed: do that inside the guard
            specs = [spec for answer in getattr(manager.hook, hook)() for spec in answer]
            names = [spec.name for spec in specs]
        except Exception as error:
            problems.append((f"{installed.origin} is left out of {hook}: {error}", error))
            continue
        found.update(zip(names, specs, strict=True))
        for name in names:
            origins.setdefault(name, []).append(installed.origin)
    for name, by in origins.items():
        if len(by) > 1:
            del found[name]
            problems.append(
                (
                    f"'{name}' of {hook} is offered by {' and by '.join(by)} and left out; "
                    "uninstall all but one of them",
                    None,
                )
            )
    return found, problems
