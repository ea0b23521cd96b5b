"""What is predicted: the layout of a target. What its numbers mean is said in :mod:`atomtrain.tasks`.

Nothing here reads files, knows an architecture or runs a model.
"""

from atomtrain.targets.layout import (
    GRADIENTS,
    LAYOUTS,
    Block,
    DatasetInfo,
    Irrep,
    TargetInfo,
    split_key,
)

__all__ = ["GRADIENTS", "LAYOUTS", "Block", "DatasetInfo", "Irrep", "TargetInfo", "split_key"]
