"""The contract between the core and its plugins. Imports neither torch nor pydantic.

``hookspecs`` is the whole of it on one page; ``architecture`` and ``components`` hold what a plugin
declares; ``catalog`` knows what is installed without importing it, ``loading`` imports one plugin. Opening an
architecture, with the core's own answers to its hooks, is :mod:`atomtrain.plugins`. No architecture is
named here.
"""

from atomtrain.contract.architecture import ArchitectureInfo as ArchitectureInfo
from atomtrain.contract.architecture import BuildContext as BuildContext
from atomtrain.contract.architecture import Deprecation as Deprecation
from atomtrain.contract.architecture import Person as Person
from atomtrain.contract.architecture import Purpose as Purpose
from atomtrain.contract.components import ComponentSpec as ComponentSpec
from atomtrain.contract.components import EvaluationSpec as EvaluationSpec
from atomtrain.contract.components import ReaderSpec as ReaderSpec
from atomtrain.contract.components import component as component
from atomtrain.contract.components import components as components
from atomtrain.contract.hookspecs import hookimpl as hookimpl
