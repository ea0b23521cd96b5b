"""The contract between the core and its plugins. Imports neither torch nor pydantic.

``hookspecs`` is the whole of it on one page; ``architecture`` and ``components`` hold what a plugin
declares; ``catalog`` knows what is installed without importing it; ``plugins`` opens one
architecture, ``components`` what packages offer beside. No architecture is named here.
"""

from atomtrain.contract.architecture import (
    ArchitectureInfo,
    BuildContext,
    Deprecation,
    Person,
    Purpose,
)
from atomtrain.contract.components import ComponentSpec, component, components
from atomtrain.contract.hookspecs import hookimpl
from atomtrain.contract.plugins import Architecture, open_architecture

__all__ = [
    "Architecture",
    "ArchitectureInfo",
    "BuildContext",
    "ComponentSpec",
    "Deprecation",
    "Person",
    "Purpose",
    "component",
    "components",
    "hookimpl",
    "open_architecture",
]
