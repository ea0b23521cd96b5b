"""What is predicted: the layout of a target. What its numbers mean is said in :mod:`atomtrain.tasks`.

Nothing here reads files, knows an architecture or runs a model. :mod:`.maps` is the only module that
imports torch and metatensor.
"""

from atomtrain.targets.layout import GRADIENT_NAMES as GRADIENT_NAMES
from atomtrain.targets.layout import GRADIENTS as GRADIENTS
from atomtrain.targets.layout import Block as Block
from atomtrain.targets.layout import DatasetInfo as DatasetInfo
from atomtrain.targets.layout import Irrep as Irrep
from atomtrain.targets.layout import TargetInfo as TargetInfo
from atomtrain.targets.layout import ensemble_name as ensemble_name
from atomtrain.targets.layout import forces_uncertainty_name as forces_uncertainty_name
from atomtrain.targets.layout import hessian_name as hessian_name
from atomtrain.targets.layout import last_layer_names as last_layer_names
from atomtrain.targets.layout import split_key as split_key
from atomtrain.targets.layout import uncertainty_name as uncertainty_name
