"""What is installed, from package metadata alone: no plugin is imported to answer that."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from atomtrain.errors import PluginError, nearest

if TYPE_CHECKING:
    from atomtrain.contract.architecture import ArchitectureInfo

ARCHITECTURES = "atomtrain.architectures"
COMPONENTS = "atomtrain.components"
COMMANDS = "atomtrain.commands"

# Plugins of ours that may not be installed: naming them beats guessing at a spelling mistake.
KNOWN_DISTRIBUTIONS = "atomtrain-{name}"


def normalise(name: str) -> str:
    """``_`` and ``-`` are equal in names; ``experimental.`` and ``deprecated.`` are dropped."""
    name = name.strip().lower().replace("_", "-")
    for prefix in ("experimental.", "deprecated."):
        name = name.removeprefix(prefix)
    return name


@dataclass(frozen=True)
class Installed:
    """One entry point: its normalised name, where it points, and which distribution brings it."""

    name: str
    value: str
    distribution: str
    version: str
    entry_point: EntryPoint

    @property
    def origin(self) -> str:
        """The distribution with its version, for messages."""
        return f"{self.distribution} {self.version}"

    def identity(self, info: ArchitectureInfo) -> dict[str, Any]:
        """What a checkpoint says of its architecture, which describes itself as ``info``."""
        return {
            "name": info.name,
            "distribution": self.distribution,
            "version": self.version,
            "model_version": info.model_version,
            "trainer_version": info.trainer_version,
        }


def installed(group: str) -> list[Installed]:
    """All entry points of a group, sorted by name. Never raises for a broken distribution."""
    found = {}
    for point in entry_points(group=group):
        try:
            distribution = point.dist.name if point.dist else "unknown distribution"
            version = point.dist.version if point.dist else "?"
        except Exception:  # a damaged dist-info folder must not hide the others
            distribution, version = "unknown distribution", "?"
        # an editable install may be on the path twice
        key = (normalise(point.name), point.value, distribution)
        found[key] = Installed(key[0], point.value, distribution, version, point)
    return [found[key] for key in sorted(found)]


def searched() -> Hashable:
    """Where packages are looked for: as long as it is the same, so is what is found."""
    return tuple(sys.path), entry_points


def architectures() -> list[Installed]:
    """All installed architectures, duplicates included."""
    return installed(ARCHITECTURES)


def names_beginning(text: str) -> list[str]:
    """The names of installed architectures that begin so: what a shell completes."""
    return sorted({one.name for one in architectures() if one.name.startswith(text)})


def find_architecture(name: str) -> Installed | None:
    """The architecture of this name, None if there is none; PluginError if there are several."""
    wanted = normalise(name)
    matches = [a for a in architectures() if a.name == wanted]
    if len(matches) > 1:
        raise PluginError(
            f"architecture '{wanted}' is provided by {' and by '.join(m.origin for m in matches)}; "
            "uninstall all but one of them"
        )
    return matches[0] if matches else None


def unknown_architecture(name: str, known: Iterable[str], origin: str = "") -> PluginError:
    """The error for a name that nothing installed answers to; ``origin``: where it came from."""
    wanted = normalise(name)
    names = sorted(set(known))
    if origin:
        return PluginError(
            f"architecture '{name}' is not installed; the file was written with '{origin}': "
            f"'pip install {origin.split()[0]}'"
        )
    distribution = KNOWN_DISTRIBUTIONS.format(name=wanted)
    near = nearest(wanted, names)
    if near:
        return PluginError(
            f"there is no architecture '{name}'; did you mean '{near}'? "
            f"(installed: {', '.join(names)})"
        )
    have = f"installed: {', '.join(names)}" if names else "no architecture is installed"
    return PluginError(
        f"architecture '{name}' is not installed ({have}); architectures are packages of their "
        f"own: try 'pip install {distribution}'"
    )
