"""Extended xyz: predictions in ``info`` and ``arrays`` of ASE's structures.

The names of arrays are separated by colons in the file: ``mtt::charge`` of atoms is ``mtt_charge``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from atomtrain.data.writers.base import Predictions
from atomtrain.targets import TargetInfo


def write_xyz(path: Path, predictions: Predictions) -> None:
    """One frame for each structure; the target ``energy`` where ASE looks for results."""
    import ase
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

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
        results: dict[str, Any] = {}
        for name, target in predictions.targets.items():
            values = predictions.values[name]
            if target.classes and (target.kind != "binary" or target.width == 1):
                _add_class(frame, target, values[atoms if target.per_atom else [k]].numpy())
                continue
            if target.per_atom:
                frame.arrays[_array_name(name)] = values[atoms].numpy().copy()
                continue
            row = values[k].numpy()
            value = float(row[0]) if len(row) == 1 else row.copy()
            parts: dict[str, Any] = {}
            if target.is_energy:
                parts["forces"] = predictions.values[f"{name}:forces"][atoms].numpy().copy()
                if bool(store.pbc[k].all()):
                    matrix = predictions.values[f"{name}:stress"][k].numpy().reshape(3, 3)
                    parts["stress"] = np.array(
                        [matrix[a, b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]
                    )
            if name == "energy":
                results = {"energy": value, **parts}
                continue
            frame.info[name] = value
            for part, array in parts.items():
                if part == "forces":
                    frame.arrays[_array_name(f"{name}_{part}")] = array
                else:
                    frame.info[f"{name}_{part}"] = array
        if results:
            frame.calc = SinglePointCalculator(frame, **results)
        frames.append(frame)
    ase.io.write(path, frames, format="extxyz")


def _array_name(name: str) -> str:
    return name.replace("::", "_")


def _add_class(frame: Any, target: TargetInfo, probabilities: np.ndarray) -> None:
    """The likeliest class by name, and the probabilities (of 1, for a binary target)."""
    binary = target.kind == "binary"
    best = probabilities[:, 0] > 0.5 if binary else probabilities.argmax(1)
    names = np.array(target.classes)[best.astype(int)]
    word = "probability" if binary else "probabilities"
    given = probabilities[:, 0] if binary else probabilities
    if target.per_atom:
        frame.arrays[_array_name(target.name)] = names
        frame.arrays[_array_name(f"{target.name}_{word}")] = given.copy()
    else:
        frame.info[target.name] = str(names[0])
        frame.info[f"{target.name}_{word}"] = given[0].copy()
