"""Memory-mapped directories: see :mod:`atomtrain.data.readers.memmap` for the format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from atomtrain.data.writers.base import Predictions
from atomtrain.files import file_stem


def write_memmap(folder: Path, predictions: Predictions) -> None:
    """Structures and predictions in ``folder``, in single precision.

    Forces and stress of an energy are ``<target>_forces.bin`` and ``<target>_stress.bin``; the
    stress is NaN without a volume.
    """
    store = predictions.store

    def write(name: str, values: Tensor, kind: str = "<f4") -> None:
        values.numpy().astype(kind).tofile(folder / f"{file_stem(name)}.bin")

    np.save(folder / "ns.npy", len(store))
    np.save(folder / "na.npy", store.offsets.numpy().astype(np.int64))
    write("x", store.positions)
    write("a", store.types, "<i4")
    write("c", store.cells)  # a vector that is not zero says that there is periodicity along it
    for name, target in predictions.targets.items():
        write(name, predictions.values[name])
        if target.is_energy and f"{name}:forces" in predictions.values:
            write(f"{name}_forces", predictions.values[f"{name}:forces"])
        if target.is_energy and f"{name}:stress" in predictions.values:
            stress = predictions.values[f"{name}:stress"]
            write(f"{name}_stress", stress.masked_fill(~store.pbc.all(1, keepdim=True), np.nan))
