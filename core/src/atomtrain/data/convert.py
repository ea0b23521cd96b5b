"""From files of structures to a data set on disk (:mod:`atomtrain.data.stored`), piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from atomtrain.data.checks import check_read
from atomtrain.data.labels import reading_as
from atomtrain.data.readers import (
    AS_IT_IS,
    Account,
    Quantity,
    Reading,
    display,
    in_pieces,
    paths_of,
)
from atomtrain.data.readers.account import Unconverged
from atomtrain.data.store_writer import StoreWriter
from atomtrain.errors import DataError, OptionsError
from atomtrain.files import check_new_folder, replacing_folder
from atomtrain.frame import Frame
from atomtrain.options import DatasetSection, Options, dump_yaml
from atomtrain.sections.names import atomic_number, symbols

TEXT = 1 << 22
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
    where: str = "convert",
    progress: Callable[[int, float], None] = lambda structures, part: None,
) -> Converted:
    """Write the structures of one or several files, with all their values, as a data set in ``folder``.

    What is in memory at a time is a piece of a file of extended xyz, a file of most other formats. The folder is
    there whole or not at all. Numbers stay as they are; the ``length_unit`` they have tells what atoms are too close.
    ``progress`` is told the number of structures so far and which part of the files was
    read. Raises DataError for what cannot be read or no model can take, OutputError where the folder cannot be
    written.
    """
    found, whole, about = Converted(), Account(), _Summary()
    paths = paths_of(read_from, reader, where)
    sizes = [max(1, _size(Path(path))) for path in paths]
    with replacing_folder(folder) as temporary:
        writer = StoreWriter(temporary)
        for k, path in enumerate(paths):
            first = done = 0
            for file, length in in_pieces(path, reader, where, reading, TEXT):
                store = file.packed(range(len(file.frames)), where)
                found.warnings += check_read(where, file.frames, store, length_unit)
                writer.add(file.frames, path, first)
                about.add(file.frames)
                account = file.account or Account()
                _join(whole, account, path, where)
                # what a reader says of a piece counts frames from its first
                piece = f"'{path}'" + (f", counted from frame {first}" if first else "")
                found.notes += [f"{piece}: {note}" for note in account.notes]
                found.warnings += [f"{piece}: {warning}" for warning in account.warnings]
                first, done = first + len(file.frames), min(done + length, sizes[k])
                progress(writer.n_structures, (sum(sizes[:k]) + done) / sum(sizes))
            progress(writer.n_structures, sum(sizes[: k + 1]) / sum(sizes))
        found.notes, found.warnings = _few(found.notes), _few(found.warnings)
        whole.notes, whole.warnings = [], found.warnings
        found.n_structures, found.left_out = writer.n_structures, writer.left_out
        found.summary = about.line(whole)
        found.n_atoms = writer.close(asdict(whole), found.summary)["n_atoms"]
    return found


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return path.stat().st_size if path.exists() else 0


def _few(remarks: Sequence[str]) -> list[str]:
    """Each once, and not too many of them."""
    found = list(dict.fromkeys(remarks))
    more = len(found) - REMARKS
    return found if more <= 0 else [*found[:REMARKS], f"and {more} more remarks of this kind"]


def _join(whole: Account, account: Account, path: str, where: str) -> None:
    """Add how a piece was read; DataError where its numbers mean something else than those before."""
    if not whole.format:
        whole.format, whole.reader = account.format, account.reader
        whole.length_unit, whole.usual_units = account.length_unit, account.usual_units
    elif whole.length_unit != account.length_unit:
        raise DataError(
            f"{where}: '{path}' has lengths in {account.length_unit or 'a unit that it does not say'}, those before in "
            f"{whole.length_unit or 'a unit that they do not say'}; convert them apart"
        )
    for key, known in account.quantities.items():
        before = whole.quantities.setdefault(key, known)
        if (before.unit, before.compression) != (known.unit, known.compression):
            raise DataError(
                f"{where}: '{path}' has '{key}' in another unit or with another sign ({_meaning(known)}) than "
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
        self._keys: dict[str, int] = {}

    def add(self, frames: Sequence[Frame]) -> None:
        self._n += len(frames)
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


def reading_of(format: str, types: Sequence[str], unconverged: str) -> Reading:
    """What a command line says of reading. OptionsError for what no reader understands."""
    found = {}
    for text in types:
        kind, _, element = text.partition("=")
        try:
            found[int(kind)] = atomic_number(element)
        except ValueError:
            raise OptionsError(f"'{text}' names no element of a type; write 1=Cu") from None
    if unconverged not in get_args(Unconverged):
        words = ", ".join(get_args(Unconverged))
        raise OptionsError(f"unconverged is '{unconverged}', but must be one of {words}")
    return Reading(format, tuple(sorted(found.items())), cast(Unconverged, unconverged))


def convert_options(
    options: Options, folder: Path, convert: Callable[..., Converted] = convert
) -> list[Converted]:
    """Make a data set of each file, or list of files, with structures that the options name.

    They are folders in ``folder``, which has also ``options.yaml``: the same options, for these.
    """
    sections = [*options.training_set, *options.validation_set, *options.test_set]
    done: dict[str, Path] = {}
    found = []
    check_new_folder(folder)
    for section in sections:
        if not isinstance(section, DatasetSection):
            continue
        systems = section.systems
        file = json.dumps(systems.read_from)
        if file in done:
            continue
        stem = re.sub(r"[^\w.-]+", "_", Path(display(systems.read_from)).stem).strip("_.") or "data"
        taken = {path.name for path in done.values()}
        names = chain([stem], (f"{stem}_{k}" for k in count(1)))
        place = folder / next(name for name in names if name not in taken)
        folder.mkdir(parents=True, exist_ok=True)
        done[file] = place
        found.append(
            convert(
                systems.read_from,
                place,
                reader=systems.reader,
                reading=reading_as(systems),
                length_unit=systems.length_unit,
                where=section.where("systems", "read_from"),
            )
        )
    plain = options.model_dump(mode="json", exclude_unset=True)
    dump_yaml(_reading_instead(plain, done), folder / "options.yaml")
    return found


def _reading_instead(value: Any, done: Mapping[str, Path]) -> Any:
    """Options that read data sets where they read the files that these were made of."""
    if isinstance(value, list):
        return [_reading_instead(item, done) for item in value]
    if not isinstance(value, dict):
        return value
    place = done.get(json.dumps(value.get("read_from")))
    if place is None:
        return {key: _reading_instead(item, done) for key, item in value.items()}
    settled = ("read_from", "reader", "format", "types", "unconverged")
    kept = {k: _reading_instead(v, done) for k, v in value.items() if k not in settled}
    return {"read_from": str(place), **kept}
