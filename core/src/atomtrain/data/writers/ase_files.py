"""Formats of ASE: structures with predictions as results, and as whatever else a format can hold.

Each holds all of them: extended xyz in ``info`` and ``arrays`` (which cannot have a colon in their names:
``mtt::charge`` of atoms is ``mtt_charge``), trajectories in ``info``, databases in ``data``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from atomtrain.data.readers.content import PACKING
from atomtrain.data.writers.base import Predictions
from atomtrain.tasks import task_of

VOIGT = (0, 4, 8, 5, 2, 1)
"""where xx, yy, zz, yz, xz, xy are in a row-major matrix"""
Values = dict[str, Any]


def write_xyz(path: Path, predictions: Predictions) -> None:
    """One frame for each structure, packed if the last extension says so."""
    frames = []
    for frame, of_structure, of_atoms in _frames(predictions):
        frame.info.update(of_structure)
        frame.arrays.update({key.replace("::", "_"): rows for key, rows in of_atoms.items()})
        frames.append(frame)
    opened = PACKING.get(path.suffix.lower(), open)
    with opened(path, "wt", encoding="utf-8") as file:
        ase.io.write(file, frames, format="extxyz")


def write_traj(path: Path, predictions: Predictions) -> None:
    """A trajectory; it has no arrays of atoms but ASE's own."""
    from ase.io.trajectory import TrajectoryWriter

    with TrajectoryWriter(path, "w") as trajectory:
        for frame, of_structure, of_atoms in _frames(predictions):
            frame.info.update({**of_structure, **of_atoms})
            trajectory.write(frame)


def write_db(path: Path, predictions: Predictions) -> None:
    """A database in SQLite; what is at ``path`` makes place for it."""
    import ase.db

    # locked by nobody: the file is not yet where others look
    with ase.db.connect(path, type="db", append=False, use_lock_file=False) as database:
        for frame, of_structure, of_atoms in _frames(predictions):
            database.write(frame, data=_plain({**of_structure, **of_atoms}))


def write_json(path: Path, predictions: Predictions) -> None:
    """A database in JSON. ASE would write all of it again for every structure."""
    from ase.db.core import now
    from ase.db.row import atoms2dict
    from ase.io.jsonio import encode

    with path.open("w", encoding="utf-8") as file:
        file.write("{")
        count = 0
        for count, (frame, of_structure, of_atoms) in enumerate(_frames(predictions), 1):
            data = _plain({**of_structure, **of_atoms})
            row = {**atoms2dict(frame), "ctime": now(), "mtime": now(), "user": "", "data": data}
            file.write(f'"{count}": {encode(row)},\n')
        file.write(f'"ids": {list(range(1, count + 1))},\n"nextid": {count + 1}}}\n')


def _frames(predictions: Predictions) -> Iterator[tuple[Any, Values, Values]]:
    """ASE's structures; what is of the structure and what is of its atoms beside ASE's results.

    Forces and stress are results with the energy called ``energy``; those of other energies are
    values as any.
    """
    store, values = predictions.store, predictions.values
    offsets = store.offsets.tolist()
    for k in range(len(store)):
        atoms = slice(offsets[k], offsets[k + 1])
        frame = ase.Atoms(
            numbers=store.types[atoms].numpy(),
            positions=store.positions[atoms].numpy(),
            cell=predictions.cells[k],
            pbc=store.pbc[k].numpy(),
        )
        of_structure: Values = dict(store.numbers(k))
        of_atoms: Values = {}
        for name, target in predictions.targets.items():
            rows = values[name][atoms if target.per_atom else slice(k, k + 1)].numpy()
            beside = task_of(target.kind).written(rows, target)
            written = {
                name: rows,
                **{k: v for k, v in beside.items() if k == name or k not in values},
            }
            if target.per_atom:
                of_atoms.update({key: array.copy() for key, array in written.items()})
            else:
                of_structure.update({key: _single(array) for key, array in written.items()})
            if not target.is_energy:
                continue
            gradients: Values = {}
            if f"{name}:forces" in values:
                gradients["forces"] = values[f"{name}:forces"][atoms].numpy().copy()
            if f"{name}:stress" in values and bool(store.pbc[k].all()):
                gradients["stress"] = values[f"{name}:stress"][k].numpy()[list(VOIGT)]
            if name == "energy":
                results = {"energy": of_structure.pop(name), **gradients}
                frame.calc = SinglePointCalculator(frame, **results)
                continue
            for kind, array in gradients.items():
                (of_atoms if kind == "forces" else of_structure)[f"{name}_{kind}"] = array
        yield frame, of_structure, of_atoms


def _single(array: np.ndarray) -> Any:
    """The only one of an array of values, without an axis where it is one number or word."""
    one = array[0]
    if one.ndim and len(one) == 1:
        one = one[0]
    return one.copy() if one.ndim else one.item()


def _plain(values: Values) -> Values:
    """With lists of words: databases have no arrays of them."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray) and value.dtype.kind in "US" else value
        for key, value in values.items()
    }
