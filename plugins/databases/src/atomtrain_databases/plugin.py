"""What atomtrain asks. Imports neither lmdb nor h5py nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atomtrain.contract import ComponentSpec, ReaderSpec, hookimpl


def _is_lmdb(path: str, head: bytes) -> bool:
    from atomtrain.data.readers import is_lmdb

    return is_lmdb(head)


def _is_hdf5(path: str, head: bytes) -> bool:
    from atomtrain.data.readers import is_hdf5

    return is_hdf5(head)


def _aselmdb() -> Any:
    from atomtrain_databases.aselmdb import read

    return read


def _mace() -> Any:
    from atomtrain_databases.mace import read

    return read


@hookimpl
def register_dataset_readers() -> Iterable[ComponentSpec]:
    """Both are told by the first bytes, so that what is of another layout is refused with its name."""
    yield ReaderSpec(
        "aselmdb",
        "fairchem's .aselmdb (OMol25, OMat24, ...)",
        _aselmdb,
        _is_lmdb,
        ("*.aselmdb", "*.lmdb"),
    )
    yield ReaderSpec("mace-h5", "HDF5 of mace_prepare_data", _mace, _is_hdf5, ("*.h5", "*.hdf5"))
