"""The contract between the core and its plugins. Imports neither torch nor pydantic.

``hookspecs`` is the whole of it on one page; ``architecture`` and ``components`` hold what a plugin
declares; ``catalog`` knows what is installed without importing it, ``loading`` imports one plugin. Opening an
architecture, with the core's own answers to its hooks, is :mod:`atomtrain.plugins`. No architecture is
named here.
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
