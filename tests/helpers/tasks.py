"""Targets of every kind, and structures to label."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from atomtrain.data import Frame
from atomtrain.options import DatasetSection
from atomtrain.targets import TargetInfo
from atomtrain.tasks import task_of


def frame(atoms: Atoms) -> Frame:
    return Frame(
        atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc.copy()
    )


def info(kind: str, **changes: Any) -> TargetInfo:
    task = task_of(kind)
    return task.complete(TargetInfo("t", kind=kind, pooling=task.pooling, **changes))


def denoising(scale: float = 0.2, normalize: bool = False) -> TargetInfo:
    return info("denoising", extra={"scale": scale, "normalize": normalize})


def section(**target: Any) -> DatasetSection:
    return DatasetSection.model_validate({"systems": "a.xyz", "targets": {"mtt::t": target}})
