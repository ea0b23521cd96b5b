"""What is predicted: the layout of a target. What its numbers mean is said in :mod:`atomtrain.tasks`.

Nothing here reads files, knows an architecture or runs a model. :mod:`.maps` is the only module that
imports torch and metatensor.
"""

from atomtrain.targets.layout import (
    GRADIENT_NAMES,
    GRADIENTS,
    LAYOUTS,
    Block,
    DatasetInfo,
    Irrep,
    TargetInfo,
    split_key,
)
