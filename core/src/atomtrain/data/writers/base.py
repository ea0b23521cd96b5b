"""What every writer is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from atomtrain.data.store import StructureStore
from atomtrain.targets import TargetInfo


@dataclass(frozen=True)
class Predictions:
    """Structures and what was predicted of them.

    ``cells [n_structures, 3, 3]`` are those of the files (the store's are zero along directions that
    are not periodic). ``values`` are on the CPU, in float64, by key: the flat rows of each target,
    and of an energy, where they are wanted, ``<target>:forces [n_atoms, 3]``, ``<target>:strain [n_structures, 9]``
    (dE/d(strain)) and ``<target>:stress [n_structures, 9]`` (zero where there is no volume).
    """

    store: StructureStore
    cells: np.ndarray
    targets: dict[str, TargetInfo]
    values: dict[str, Tensor]
