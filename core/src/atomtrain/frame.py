"""Frame: one structure with all that its file says of it. What readers give and tasks read labels from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Frame:
    """One structure of a file with all that the file says of it.

    ``numbers [n]`` int64, ``positions [n, 3]`` and ``cell [3, 3]`` float64 (rows are vectors),
    ``pbc [3]`` bool; ``per_atom`` arrays lead with ``n``. ``fixed [n, 3]`` bool, or None: components
    of positions that a constraint held, where forces in the file are none.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    per_structure: dict[str, Any] = field(default_factory=dict)
    per_atom: dict[str, np.ndarray] = field(default_factory=dict)
    fixed: np.ndarray | None = None

    def find(self, key: str) -> Any:
        """The value under ``key``, or None."""
        value = self.per_structure.get(key)
        return self.per_atom.get(key) if value is None else value

    @property
    def keys(self) -> set[str]:
        """All keys."""
        return {*self.per_structure, *self.per_atom}
