"""What atomtrain asks. Imports neither dpdata nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atomtrain.contract import ComponentSpec, hookimpl


def _read() -> Any:
    from atomtrain_dpdata.reader import read

    return read


@hookimpl
def register_dataset_readers() -> Iterable[ComponentSpec]:
    """One reader, for many formats: ``format`` in the options chooses where it is not plain."""
    yield ComponentSpec(
        "dpdata", "DeePMD-kit, ABACUS, CP2K, PWmat, OpenMX, SIESTA, psi4, ...", _read
    )
