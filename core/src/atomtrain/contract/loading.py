"""Importing the module that an entry point names. ``packaging`` is imported late: help needs none of it."""

from __future__ import annotations

from types import ModuleType

from atomtrain._version import __version__
from atomtrain.contract import catalog
from atomtrain.errors import PluginError


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
