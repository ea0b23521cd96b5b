"""HDF5 files that ``mace_prepare_data`` of MACE writes.

Looked up in ``mace.data.utils.save_configurations_as_HDF5`` and ``mace.data.hdf5_dataset`` of versions 0.3.5
to 0.3.16. Structures are groups ``config_batch_I/config_J`` (``config_I/config_J`` in the oldest). Values
lie in a group ``properties`` and weights in ``property_weights``; before 0.3.13 they lay beside the
positions, weights as ``energy_weight``. What a structure does not have is the string ``None``, with a
weight of 0. Nothing is said of units: MACE converts none, and expects eV and angstrom. Its stress is
the derivative of the energy by the strain over the volume (ASE's sign), its virials minus the derivative.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import h5py
import numpy as np

from atomtrain.data import Frame
from atomtrain.data.readers import Account, LazyFrames, Quantity, is_hdf5
from atomtrain.errors import DataError
from atomtrain_databases.start import check_start

_ATOMS = ("atomic_numbers", "positions", "cell", "pbc")
_OURS = {"virials": "virial"}
_OF_STRUCTURE = ("stress", "virials", "dipole", "polarizability", "external_field")
"""what is never per atom, however many atoms there are"""
_COPY = "copy it again, or run mace_prepare_data again"


def read(path: str, where: str) -> LazyFrames:
    """The structures of a file, read when they are asked for. Raises DataError."""
    file = _File(path, f"{where}: '{path}' (mace-h5)")
    count = file.starts[-1]
    account = Account("mace-h5", f"h5py {h5py.__version__}", count)
    account.quantities["virial"] = Quantity("virials")
    return LazyFrames(partial(_frame, file), range(count), account)


class _File:
    """A file, opened when it is needed: other processes open it for themselves.

    ``batches``: names of the groups of structures, empty for the file itself; ``starts``: the numbers of
    their first structures, and of all.
    """

    def __init__(self, path: str, here: str) -> None:
        self.path, self.here = path, here
        self._root: Any = None
        with _readable(here):
            self.batches, counts = self._layout()
        self.starts = [0, *accumulate(counts)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_root": None}

    @property
    def root(self) -> Any:
        if self._root is None:
            check_start(self.path, self.here, is_hdf5, "HDF5")
            with _readable(self.here):
                # folders and disks on which nothing can be locked are read too
                self._root = h5py.File(self.path, "r", locking=False)
        return self._root

    def _layout(self) -> tuple[list[str], list[int]]:
        """Groups of structures with their numbers of structures."""
        root = self.root
        batches = sorted(
            (key for key in root if re.fullmatch(r"config_(batch_)?\d+", key)), key=_order
        )
        first = root[batches[0]] if batches else {}
        if not isinstance(first, Mapping):
            first = {}
        if any(re.fullmatch(r"config_\d+", key) for key in first):
            return batches, [len(root[key]) for key in batches]
        if "atomic_numbers" in first:
            return [""], [len(batches)]
        if batches and "node_attrs" in first:
            raise DataError(
                f"{self.here} has graphs with a cutoff ({batches[0]}/edge_index), which do not say what elements "
                "their atoms are; write the structures with mace_prepare_data, or as extended xyz"
            )
        raise DataError(f"{self.here} {_other(root)}")

    def structure(self, k: int) -> tuple[str, Any]:
        """The name and the group of a structure."""
        batch = bisect_right(self.starts, k) - 1
        name = f"{self.batches[batch]}/config_{k - self.starts[batch]}".lstrip("/")
        if name not in self.root:
            raise DataError(f"{self.here} has no group '{name}', though there are more; {_COPY}")
        return name, self.root[name]


@contextmanager
def _readable(here: str) -> Iterator[None]:
    """What h5py raises inside as a DataError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{here} is cut off or damaged, or still being written ({error}); {_COPY}"
        ) from error


def _order(name: str) -> int:
    return int(name.rsplit("_", 1)[1])


def _other(root: Any) -> str:
    """What an HDF5 file has that is none of MACE's."""
    keys = list(root)
    shown = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
    said = (
        "is an HDF5 file, but not of mace_prepare_data, which has groups config_batch_0/config_0 with "
        f"atomic_numbers and positions; it has {shown or 'nothing'}"
    )
    groups = [root, *(root[key] for key in keys[:8] if isinstance(root[key], h5py.Group))]
    if any("type.raw" in group for group in groups):
        return f"{said}, as DeePMD-kit's files have: write reader: dpdata (of atomtrain-dpdata)"
    return f"{said}; write its structures as extended xyz with the program that made it"


def _frame(file: _File, k: int) -> Frame:
    with _readable(file.here):
        name, group = file.structure(k)
        values = _values(group.id)
    here = f"{file.here}: '{name}'"
    lacking = [key for key in _ATOMS[:2] if values.get(key) is None]
    if lacking:
        raise DataError(f"{here} has no {' and no '.join(lacking)} (it has {', '.join(values)})")
    try:
        return _structure(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{here} does not fit together: {error}") from error


def _values(group: Any) -> dict[str, Any]:
    """All that is in a group, by name; what is in groups inside by theirs.

    By h5py's lower level, which takes half the time for so many small datasets.
    """
    values: dict[str, Any] = {}
    for name in group:
        one = h5py.h5o.open(group, name)
        values[name.decode()] = _values(one) if isinstance(one, h5py.h5g.GroupID) else _value(one)
    return values


def _value(dataset: Any) -> Any:
    """What a dataset has: a number, an array, text; None for what MACE had none of."""
    array = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    if array.ndim:
        return array
    value = array[()]
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return None if isinstance(text, str) and text in ("", "None") else text


def _structure(values: dict[str, Any]) -> Frame:
    """The structure of a group. Raises ValueError or TypeError where it does not fit together."""
    given = values.pop("property_weights", {})
    weights = {f"{key}_weight": weight for key, weight in given.items()}
    weights |= {key: values.pop(key) for key in [key for key in values if key.endswith("weight")]}
    values |= values.pop("properties", {})
    numbers, positions, cell, pbc = (values.pop(key, None) for key in _ATOMS)
    count = len(numbers)
    per_structure: dict[str, Any] = {
        f"config_{key}": weight
        for key, weight in weights.items()
        if weight is not None and np.any((weight != 0) & (weight != 1))
    }
    per_atom: dict[str, np.ndarray] = {}
    for key, value in values.items():
        weight = weights.get(f"{key}_weight")
        if value is None or (weight is not None and not np.any(weight)):
            continue
        by_atom = np.shape(value)[:1] == (count,) and key not in _OF_STRUCTURE
        (per_atom if by_atom else per_structure)[_OURS.get(key, key)] = value
    return Frame(
        np.asarray(numbers, dtype=np.int64),
        np.asarray(positions, dtype=np.float64).reshape(count, 3),
        np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64).reshape(3, 3),
        np.zeros(3, dtype=bool) if pbc is None else np.asarray(pbc, dtype=bool).reshape(3),
        per_structure,
        per_atom,
    )
