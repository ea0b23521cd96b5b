"""How results are shown: units people use, the log and progress of a training, tables.

Nothing here computes results.
"""

from atomtrain.report.units import errors_line, numbers, quantities

__all__ = ["errors_line", "numbers", "quantities"]
