"""Models and what surrounds them at prediction: base classes, composition and scale, gradients, export.

Nothing here reads data files or trains. An architecture author needs :class:`Model` (or one of the
easier levels) and nothing else.
"""

from atomtrain.model.affine import Affine
from atomtrain.model.backbone import Backbone
from atomtrain.model.base import Baseline, Constants, Model, PotentialModel
from atomtrain.model.features import FeatureModel
from atomtrain.model.gradients import forces_and_strain, with_leaves
from atomtrain.model.predictor import Predictor
from atomtrain.model.zbl import ZBL
