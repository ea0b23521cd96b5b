"""Importing the module that an entry point names. ``packaging`` is imported late: help needs none of it."""

from __future__ import annotations

import inspect
from types import FunctionType, ModuleType
from typing import Any

from atomtrain._version import __version__
from atomtrain.contract import catalog
from atomtrain.contract.hookspecs import PROJECT, ArchitectureHooks, ComponentHooks
from atomtrain.errors import PluginError, did_you_mean


def import_plugin(installed: catalog.Installed) -> ModuleType:
    """The module behind an entry point. Raises PluginError naming the distribution."""
    _check_core_version(installed)
    try:
        module = installed.entry_point.load()
    except Exception as error:
        raise PluginError(
            f"'{installed.name}' ({installed.origin}) is installed but cannot be imported: "
            f"{type(error).__name__}: {error}. Reinstall it ('pip install --force-reinstall "
            f"{installed.distribution}') or report it to its authors"
        ) from error
    if not isinstance(module, ModuleType):
        raise PluginError(
            f"'{installed.name}' ({installed.origin}): the entry point must name a module, "
            f"'{installed.value}' is a {type(module).__name__}"
        )
    return module


def mistaken_hooks(module: ModuleType) -> list[str]:
    """What is wrong with the hooks of a plugin's module, each with its file and line.

    A function with a hook's name but without ``@hookimpl`` would never be asked; pluggy names neither place nor remedy
    for names and arguments that do not exist.
    """
    hooks = {
        name: [p for p in inspect.signature(spec).parameters if p != "self"]
        for hooks in (ArchitectureHooks, ComponentHooks)
        for name, spec in vars(hooks).items()
        if not name.startswith("_")
    }
    found = []
    for name, function in vars(module).items():
        if not isinstance(function, FunctionType):
            continue
        marked: dict[str, Any] | None = getattr(function, f"{PROJECT}_impl", None)
        where = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
        if marked is None:
            if name in hooks:
                found.append(
                    f"'{name}' is a hook but lacks @hookimpl, and would never be asked; mark it, or rename it ({where})"
                )
            continue
        hook = marked.get("specname") or name
        if hook not in hooks:
            found.append(f"there is no hook '{hook}'{did_you_mean(hook, hooks)} ({where})")
            continue
        for argument in inspect.signature(function).parameters:
            if argument not in hooks[hook]:
                hint = did_you_mean(argument, hooks[hook], "it has")
                found.append(f"the hook '{hook}' has no argument '{argument}'{hint} ({where})")
    return found


def _check_core_version(installed: catalog.Installed) -> None:
    """Refuse a distribution that says it needs another version of atomtrain, before it fails."""
    from packaging.requirements import InvalidRequirement, Requirement

    distribution = installed.entry_point.dist
    for line in (distribution.requires if distribution is not None else None) or ():
        if not line.lower().startswith("atomtrain"):
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # pip would not have installed it: its import will say more
        if requirement.name.lower() != "atomtrain":
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and not requirement.specifier.contains(__version__, prereleases=True):
            raise PluginError(
                f"'{installed.name}' ({installed.origin}) was made for atomtrain "
                f"{requirement.specifier}, but atomtrain {__version__} is installed; install "
                f"versions that fit: pip install -U atomtrain {installed.distribution}"
            )
