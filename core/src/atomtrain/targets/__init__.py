"""What is predicted: the layout of a target (and, with the tasks, its labels, loss and metrics).

Nothing here reads files, knows an architecture or runs a model.
"""

from atomtrain.targets.layout import GRADIENTS, Block, DatasetInfo, Irrep, TargetInfo

__all__ = ["GRADIENTS", "Block", "DatasetInfo", "Irrep", "TargetInfo"]
