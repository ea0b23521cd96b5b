"""Crystal symmetry: space groups, point groups, crystal systems, given or computed with spglib."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import spglib
from pydantic import Field

from atomtrain.options import Section
from atomtrain.targets import TargetInfo
from atomtrain.tasks.classification import Classes

if TYPE_CHECKING:
    from torch import Tensor

    from atomtrain.data import Frame

LAST_OF_SYSTEM = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}
"""Number of the last space group of each crystal system (International Tables, volume A)."""
LAST_OF_POINT_GROUP = {
    "1": 1,
    "-1": 2,
    "2": 5,
    "m": 9,
    "2/m": 15,
    "222": 24,
    "mm2": 46,
    "mmm": 74,
    "4": 80,
    "-4": 82,
    "4/m": 88,
    "422": 98,
    "4mm": 110,
    "-42m": 122,
    "4/mmm": 142,
    "3": 146,
    "-3": 148,
    "32": 155,
    "3m": 161,
    "-3m": 167,
    "6": 173,
    "-6": 174,
    "6/m": 176,
    "622": 182,
    "6mm": 186,
    "-6m2": 190,
    "6/mmm": 194,
    "23": 199,
    "m-3": 206,
    "432": 214,
    "-43m": 220,
    "m-3m": 230,
}
"""Number of the last space group of each point group, in Hermann-Mauguin symbols."""


class SymmetryArguments(Section):
    """What may follow ``spacegroup``, ``pointgroup`` and ``crystal_system``."""

    symprec: Annotated[float, Field(gt=0)] = 0.01
    """Tolerance on positions when symmetry is computed, in the length unit of the data."""


class SpaceGroup(Classes):
    """One of the 230 space groups, by number.

    Read where the options name a ``key`` or file, else computed with spglib at ``symprec``.
    """

    kind = "spacegroup"
    arguments = SymmetryArguments
    fixed_classes = True
    shown: tuple[str, ...] = ("accuracy", "top-5 accuracy", "crystal system accuracy")
    last = {str(number): number for number in range(1, 231)}
    """number of the last space group of each class"""

    def complete(self, info: TargetInfo) -> TargetInfo:
        arguments = SymmetryArguments.model_validate(info.extra)
        names = tuple(self.last)
        return replace(info, classes=names, num_subtargets=len(names), extra=arguments.model_dump())

    def computes_labels(self, info: TargetInfo, given: bool) -> bool:
        return not given

    def row(self, value: Any, info: TargetInfo, structure: Frame) -> np.ndarray:
        if value is None:
            number = space_group(structure, info.extra["symprec"])
            value = next(name for name, last in self.last.items() if number <= last)
        return super().row(value, info, structure)

    def metrics(self, sums: Tensor, info: TargetInfo) -> dict[str, float]:
        found = super().metrics(sums, info)
        confusion = self.confusion(sums, info)
        systems = np.searchsorted(list(LAST_OF_SYSTEM.values()), list(self.last.values()))
        same = systems[:, None] == systems[None, :]
        total = confusion.sum()
        if self.kind != "crystal_system":
            right = confusion[same].sum() / total if total else float("nan")
            found["crystal system accuracy"] = float(right)
        return found


class PointGroup(SpaceGroup):
    """One of the 32 crystallographic point groups, by Hermann-Mauguin symbol."""

    kind = "pointgroup"
    last = LAST_OF_POINT_GROUP


class CrystalSystem(SpaceGroup):
    """One of the seven crystal systems, by name."""

    kind = "crystal_system"
    last = LAST_OF_SYSTEM
    shown = Classes.shown


def space_group(structure: Frame, symprec: float) -> int:
    """Number of the space group at tolerance ``symprec``, computed with spglib.

    Raises ValueError where there is no answer.
    """
    if not structure.pbc.all():
        raise ValueError("it is not periodic in all directions and has no space group")
    fractional = np.linalg.solve(structure.cell.T, structure.positions.T).T
    cell = (structure.cell.tolist(), fractional.tolist(), structure.numbers.tolist())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # spglib announces a change of its own errors
            dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
    except Exception as error:  # newer versions raise where older ones answer None
        raise ValueError(f"spglib finds no space group at symprec {symprec:g}: {error}") from error
    if dataset is None:
        raise ValueError(f"spglib finds no space group at symprec {symprec:g}")
    return int(dataset.number)
