"""Formats that are read here because ASE does not, or not rightly. The next one is an entry of OWN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from atomtrain.data.readers import fitsnap, gro, mtp, npz
from atomtrain.data.readers.account import Frames


@dataclass(frozen=True)
class OwnFormat:
    """How a format is recognised, by path and first bytes (empty for a folder), and read.

    ``read(path, where)`` raises DataError, its message beginning with ``where``.
    """

    recognises: Callable[[str, bytes], bool]
    read: Callable[[str, str], Frames]


OWN: dict[str, OwnFormat] = {
    "mtp-cfg": OwnFormat(mtp.recognises, mtp.read),
    "fitsnap-json": OwnFormat(fitsnap.recognises, fitsnap.read),
    "npz": OwnFormat(npz.recognises, npz.read),
    "gromacs": OwnFormat(gro.recognises, gro.read),
}
"""by the name for ``format:`` in the options"""
