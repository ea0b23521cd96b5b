"""What component packages offer: small frozen descriptions that load their code when used."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pluggy

from atomtrain.contract import catalog
from atomtrain.contract.hookspecs import PROJECT, ArchitectureHooks, ComponentHooks
from atomtrain.contract.loading import import_plugin, mistaken_hooks
from atomtrain.errors import PluginError, nearest


@dataclass(frozen=True)
class ComponentSpec:
    """A dataset reader, task, loss, observer or evaluation.

    ``load()`` imports and returns the implementation; it runs only when the options name ``name``.
    """

    name: str
    summary: str
    load: Callable[[], Any]


@dataclass(frozen=True)
class ReaderSpec(ComponentSpec):
    """A dataset reader that need not be named in the options.

    ``recognises(path, head)``: whether it reads a file, by its path and its first bytes; it must be quick.
    ``files``: names, with wildcards, of the files it reads in a folder, all of them, sorted by name.
    """

    recognises: Callable[[str, bytes], bool]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationSpec(ComponentSpec):
    """A look at every training that is over.

    ``always``: also where the options do not name it, after those that they name; ``final_eval: {name: false}``
    turns it off.
    """

    always: bool = False


def components(hook: str) -> dict[str, ComponentSpec]:
    """What all component packages offer to ``hook`` (``register_losses``, ...), by name.

    A package that fails is left out with one warning (with an error under ATOMTRAIN_STRICT_PLUGINS=1),
    and so is a name that two packages offer.
    """
    offered = _offered(hook)
    if offered.problems and os.environ.get("ATOMTRAIN_STRICT_PLUGINS") == "1":
        message, error = offered.problems[0]
        raise PluginError(message) from error
    if not offered.told:
        offered.told = True
        for message, _ in offered.problems:
            warnings.warn(message, stacklevel=2)
    return dict(offered.specs)


def component(hook: str, name: str) -> ComponentSpec:
    """The component that ``hook`` offers under ``name``.

    Raises PluginError if there is none: with the nearest name or the package to install, and with
    what is wrong with packages that failed, one of which may be the one that has it.
    """
    offered = _offered(hook)
    found, problems = offered.specs, offered.problems
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
    "register_evaluations": "evaluation",
}


@dataclass
class _Offered:
    """What is offered to a hook, and what went wrong on the way: messages and their causes."""

    specs: dict[str, ComponentSpec] = field(default_factory=dict)
    problems: list[tuple[str, Exception | None]] = field(default_factory=list)
    told: bool = False
    """whether the problems were warned of"""


def _offered(hook: str) -> _Offered:
    """What is offered to a hook. Packages are asked once, and again where others may be found."""
    return _ask(hook, catalog.searched())


@lru_cache(maxsize=16)
def _ask(hook: str, searched: Hashable) -> _Offered:
    """Ask all packages. ``searched`` is where they were looked for, and only tells answers apart."""
    offered = _Offered()
    origins: dict[str, list[str]] = {}
    for installed in catalog.installed(catalog.COMPONENTS) + catalog.architectures():
        try:
            manager = pluggy.PluginManager(PROJECT)
            manager.add_hookspecs(ArchitectureHooks)
            manager.add_hookspecs(ComponentHooks)
            module = import_plugin(installed)
            mistakes = mistaken_hooks(module)
            if mistakes:
                raise PluginError("; ".join(mistakes))
            manager.register(module, installed.name)
            # a generator raises only when it is consumed: do that inside the guard
            specs = [spec for answer in getattr(manager.hook, hook)() for spec in answer]
            names = [spec.name for spec in specs]
        except Exception as error:
            message = f"{installed.origin} is left out of {hook}: {error}"
            offered.problems.append((message, error))
            continue
        offered.specs.update(zip(names, specs, strict=True))
        for name in names:
            origins.setdefault(name, []).append(installed.origin)
    for name, by in origins.items():
        if len(by) > 1:
            del offered.specs[name]
            message = (
                f"'{name}' of {hook} is offered by {' and by '.join(by)} and left out; "
                "uninstall all but one of them"
            )
            offered.problems.append((message, None))
    return offered
