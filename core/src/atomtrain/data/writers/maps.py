"""Metatensor's maps: see :mod:`atomtrain.data.readers.maps` for the formats."""

from __future__ import annotations

import zipfile
from pathlib import Path

import metatensor.torch
import metatomic.torch
import numpy as np
import torch
from metatensor.torch import TensorMap

from atomtrain.data.writers.base import Predictions
from atomtrain.files import file_stem
from atomtrain.targets.maps import to_map


def map_path(path: Path, target: str) -> Path:
    """The file of one target: ``<stem>_<target>.mts``."""
    return path.with_name(f"{path.stem}_{file_stem(target)}.mts")


def write_map(path: Path, predictions: Predictions, name: str) -> None:
    """The predictions of one target for all structures."""
    metatensor.torch.save(str(path), _map(predictions, name, 0, len(predictions.store)))


def write_zip(path: Path, predictions: Predictions) -> None:
    """An archive with structures and predictions, nothing compressed."""
    store = predictions.store
    offsets = store.offsets.tolist()
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(len(store)):
            system = metatomic.torch.System(
                types=store.types[offsets[k] : offsets[k + 1]].to(torch.int32),
                positions=store.positions[offsets[k] : offsets[k + 1]],
                cell=store.cells[k],
                pbc=store.pbc[k],
            )
            with archive.open(f"{k}/system.mta", "w") as file:
                metatomic.torch.save(file, system)
            for name in predictions.targets:
                content = metatensor.torch.save_buffer(_map(predictions, name, k, k + 1))
                with archive.open(f"{k}/{file_stem(name)}.mts", "w") as file:
                    np.save(file, content.numpy())  # the format wants the bytes as an array
        with archive.open("metadata/atom_counts.npy", "w") as file:
            np.save(file, store.n_atoms.numpy().astype(np.int64))


def _map(predictions: Predictions, name: str, start: int, stop: int) -> TensorMap:
    """The predictions of structures ``start`` to ``stop``, under these numbers."""
    store, values, target = predictions.store, predictions.values, predictions.targets[name]
    structures = slice(start, stop)
    atoms = slice(int(store.offsets[start]), int(store.offsets[stop]))
    return to_map(
        target,
        values[name][atoms if target.per_atom else structures],
        store.n_atoms[structures],
        forces=values[f"{name}:forces"][atoms] if f"{name}:forces" in values else None,
        strain=values[f"{name}:strain"][structures] if f"{name}:strain" in values else None,
        first=start,
    )
