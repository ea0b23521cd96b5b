"""From files of structures to a data set on disk (:mod:`atomtrain.data.stored`), piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from atomtrain.data.checks import check_read
from atomtrain.data.readers import AS_IT_IS, Account, Quantity, Reading, in_pieces, paths_of
from atomtrain.data.readers.frames import FramesFile
from atomtrain.data.stored import StoreWriter
from atomtrain.errors import DataError
from atomtrain.files import replacing_folder
from atomtrain.frame import Frame
from atomtrain.sections.names import symbols

TEXT = 1 << 24
"""bytes of text that are read at once"""
REMARKS = 20
"""remarks of pieces that are kept"""


@dataclass
class Converted:
    """What a data set on disk was made of: counts, and lines for the log."""

    n_structures: int = 0
    n_atoms: int = 0
    summary: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def convert(
    read_from: str | Sequence[str],
    folder: Path,
    *,
    reader: str | None = None,
    reading: Reading = AS_IT_IS,
    length_unit: str = "angstrom",
    progress: Callable[[int, str], None] = lambda n, path: None,
) -> Converted:
    """Write the structures of one or several files, with all their values, as a data set in ``folder``.

    What is in memory at a time is a piece of a file of extended xyz, a file of most other formats. The folder is
    there whole or not at all. ``progress`` is told the number of structures so far and the file at hand. Raises
    DataError for what cannot be read or no model can take, OutputError where the folder cannot be written.
    """
    found = Converted()
    paths = paths_of(read_from, reader, "convert")
    with replacing_folder(folder) as temporary:
        writer = StoreWriter(temporary)
        whole = Account()
        about = _Summary()
        for path in paths:
            first = 0
            for frames, account in in_pieces(path, reader, "convert", reading, TEXT):
                where = f"convert, structures from {first} on"
                file = FramesFile(path, frames)
                store = file.packed(range(len(frames)), where)
                remarks = check_read(where, frames, store, length_unit)
                writer.add(frames, path, first)
                _join(whole, account, path)
                about.add(frames)
                found.notes += [f"'{path}': {note}" for note in account.notes]
                found.warnings += [*remarks, *(f"'{path}': {w}" for w in account.warnings)]
                first += len(frames)
                progress(writer.n_structures, path)
        found.notes, found.warnings = _few(found.notes), _few(found.warnings)
        whole.notes, whole.warnings = [], found.warnings
        found.n_structures, found.left_out = writer.n_structures, writer.left_out
        found.summary = about.line(whole)
        index = writer.close(asdict(whole), found.summary)
        found.n_atoms = index["n_atoms"]
    return found


def _few(remarks: Sequence[str]) -> list[str]:
    """Each once, and not too many of them."""
    found = list(dict.fromkeys(remarks))
    more = len(found) - REMARKS
    return found if more <= 0 else [*found[:REMARKS], f"and {more} more remarks of this kind"]


def _join(whole: Account, account: Account, path: str) -> None:
    """Add how a piece was read; DataError where its numbers mean something else than those before."""
    if not whole.format:
        whole.format, whole.reader = account.format, account.reader
        whole.length_unit, whole.usual_units = account.length_unit, account.usual_units
    elif whole.length_unit != account.length_unit:
        raise DataError(
            f"convert: '{path}' has lengths in {account.length_unit or 'a unit that it does not say'}, those before in "
            f"{whole.length_unit or 'a unit that they do not say'}; convert them apart"
        )
    for key, known in account.quantities.items():
        before = whole.quantities.setdefault(key, known)
        if (before.unit, before.compression) != (known.unit, known.compression):
            raise DataError(
                f"convert: '{path}' has '{key}' in another unit or with another sign ({_meaning(known)}) than "
                f"the files before ({_meaning(before)}); convert them apart"
            )
        if before != known:
            whole.quantities[key] = replace(before, name="", note="")


def _meaning(quantity: Quantity) -> str:
    sign = "positive under compression" if quantity.compression else "positive under tension"
    return f"{quantity.unit or 'no unit'}, {sign}"


class _Summary:
    """One line on structures that are gone through."""

    def __init__(self) -> None:
        self._n = self._periodic = 0
        self._types: set[int] = set()
        self._largest: dict[str, float] = {}
        self._some: list[Frame] = []
        self._keys: dict[str, int] = {}

    def add(self, frames: Sequence[Frame]) -> None:
        self._n += len(frames)
        self._some += frames[: max(0, 3 - len(self._some))]
        self._types.update(np.unique(np.concatenate([f.numbers for f in frames])).tolist())
        self._periodic += sum(bool(frame.pbc.all()) for frame in frames)
        for frame in frames:
            for key in frame.keys:
                self._keys[key] = self._keys.get(key, 0) + 1

    def line(self, account: Account) -> str:
        named = [f"{k} (in {n})" if n < self._n else k for k, n in sorted(self._keys.items())]
        cells = {0: "not periodic", self._n: "periodic"}.get(
            self._periodic, f"{self._periodic} of them periodic in all directions"
        )
        by = f" ({account.reader})" if account.reader else ""
        return (
            f"{self._n} structures from {account.format or 'frames'}{by}; "
            f"{symbols(sorted(self._types), ' ')}; {cells}; {', '.join(named) or 'no values'}"
        )
