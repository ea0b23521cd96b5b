"""Extended xyz: predictions in ``info`` and ``arrays`` of ASE's structures.

The names of arrays are separated by colons in the file: ``mtt::charge`` of atoms is ``mtt_charge``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from atomtrain.data.writers.base import Predictions
from atomtrain.targets import TargetInfo
from atomtrain.tasks import task_of

VOIGT = (0, 4, 8, 5, 2, 1)
"""where xx, yy, zz, yz, xz, xy are in a row-major matrix"""


def write_xyz(path: Path, predictions: Predictions) -> None:
    """One frame for each structure; the target ``energy`` where ASE looks for results."""
    store = predictions.store
    frames = []
    offsets = store.offsets.tolist()
    for k in range(len(store)):
        atoms = slice(offsets[k], offsets[k + 1])
        frame = ase.Atoms(
            numbers=store.types[atoms].numpy(),
            positions=store.positions[atoms].numpy(),
            cell=predictions.cells[k],
            pbc=store.pbc[k].numpy(),
        )
        for name, target in predictions.targets.items():
            rows = predictions.values[name][atoms if target.per_atom else slice(k, k + 1)].numpy()
            written = task_of(target.kind).written(rows, target) or {name: rows}
            for key, values in written.items():
                _add(frame, key, values, target.per_atom)
            if target.is_energy:
                _add_energy(frame, target, predictions, k, atoms)
        frames.append(frame)
    ase.io.write(path, frames, format="extxyz")


def _add(frame: Any, name: str, values: np.ndarray, per_atom: bool) -> None:
    """A value of each atom, or the only one of the structure."""
    if per_atom:
        frame.arrays[name.replace("::", "_")] = values.copy()
        return
    one = values[0]
    if one.ndim and len(one) == 1:
        one = one[0]
    frame.info[name] = one.copy() if one.ndim else one.item()


def _add_energy(
    frame: Any, target: TargetInfo, predictions: Predictions, k: int, atoms: slice
) -> None:
    """Forces and stress; with the energy itself as results of ASE if it is called ``energy``."""
    name, values = target.name, predictions.values
    forces = values[f"{name}:forces"][atoms].numpy()
    parts: dict[str, Any] = {"forces": forces.copy()}
    if bool(predictions.store.pbc[k].all()):
        parts["stress"] = values[f"{name}:stress"][k].numpy()[list(VOIGT)]
    if name == "energy":
        frame.calc = SinglePointCalculator(frame, energy=frame.info.pop(name), **parts)
        return
    _add(frame, f"{name}_forces", forces, per_atom=True)
    if "stress" in parts:
        frame.info[f"{name}_stress"] = parts["stress"]
