"""What is predicted: the layout of a target (and, with the tasks, its labels, loss and metrics).

Nothing here reads files, knows an architecture or runs a model. :mod:`.maps` is the only module that
imports torch and metatensor.
"""

from atomtrain.targets.layout import (
    GRADIENTS,
    Block,
    DatasetInfo,
    Irrep,
    TargetInfo,
    split_key,
)

__all__ = ["GRADIENTS", "Block", "DatasetInfo", "Irrep", "TargetInfo", "split_key"]
