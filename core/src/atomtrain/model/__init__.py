"""Models and what surrounds them at prediction: base classes, composition and scale, gradients, export.

Nothing here reads data files or trains. An architecture author needs :class:`Model` (or one of the
easier levels) and nothing else.
"""

from atomtrain.model.backbone import Backbone as Backbone
from atomtrain.model.base import Constants as Constants
from atomtrain.model.base import ExtraInput as ExtraInput
from atomtrain.model.base import Model as Model
from atomtrain.model.base import PotentialModel as PotentialModel
from atomtrain.model.features import FeatureModel as FeatureModel
from atomtrain.model.gradients import forces_and_strain as forces_and_strain
from atomtrain.model.gradients import with_leaves as with_leaves
from atomtrain.model.growth import Growth as Growth
from atomtrain.model.inputs import STANDARD as STANDARD
from atomtrain.model.inputs import inputs_of as inputs_of
from atomtrain.model.predictor import Predictor as Predictor
from atomtrain.model.zbl import ZBL as ZBL
