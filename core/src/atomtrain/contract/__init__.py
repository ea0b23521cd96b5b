"""The contract between the core and its plugins. Imports neither torch nor pydantic.

``hookspecs`` is the whole of it on one page; ``architecture`` and ``components`` hold what a plugin
declares; ``catalog`` knows what is installed without importing it; ``plugins`` opens one
architecture. No architecture is named here.
"""

from atomtrain.contract.architecture import (
    ArchitectureInfo,
    BuildContext,
    Deprecation,
    Person,
    Purpose,
)
from atomtrain.contract.components import ComponentSpec
from atomtrain.contract.hookspecs import hookimpl
from atomtrain.contract.plugins import Architecture, components, open_architecture

__all__ = [
    "Architecture",
    "ArchitectureInfo",
    "BuildContext",
    "ComponentSpec",
    "Deprecation",
    "Person",
    "Purpose",
    "components",
    "hookimpl",
    "open_architecture",
]
