"""Reading files, whatever their format, as frames and flat rows of labels.

:class:`Files` opens a path as a :class:`~.base.DataFile`: what ASE reads and what readers of packages
give (``frames``), data sets on disk (``stored``), memory-mapped directories (``memmap``), and metatensor's maps
(``maps``), one for all structures or one for each, in a folder or in a zip archive with the structures.

A list of files, or a name with wildcards, is one :class:`DataFile` if all are read frame by frame.

A reader that a package brings (``register_dataset_readers``) is a function ``(path, where) ->
Sequence[Frame]`` that raises DataError, its message beginning with ``where``, for what it cannot read. If
it has a third parameter ``format``, that is what the options say, or empty; if it gives :class:`Frames` or
:class:`LazyFrames`, the log says what their account tells. It is chosen by ``reader`` in the options, or
because it recognises the file (:class:`atomtrain.contract.ReaderSpec`).

:class:`Files` holds all frames; :func:`frames_of` gives those of a file as its reader does, piece by piece
where that can.
"""

from __future__ import annotations

import glob
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

from atomtrain.contract import ReaderSpec, components
from atomtrain.data.readers.account import Account as Account
from atomtrain.data.readers.account import Frames as Frames
from atomtrain.data.readers.account import LazyFrames as LazyFrames
from atomtrain.data.readers.account import Quantity as Quantity
from atomtrain.data.readers.account import Reading as Reading
from atomtrain.data.readers.ase_files import fixed_components as fixed_components
from atomtrain.data.readers.ase_files import read_ase, read_in_pieces
from atomtrain.data.readers.base import DataFile
from atomtrain.data.readers.content import DAMAGED, beginning
from atomtrain.data.readers.content import is_hdf5 as is_hdf5
from atomtrain.data.readers.content import is_lmdb as is_lmdb
from atomtrain.data.readers.content import packed as packed
from atomtrain.data.readers.frames import FramesFile, JoinedFiles
from atomtrain.data.readers.memmap import MemmapFile
from atomtrain.data.readers.own import OWN
from atomtrain.data.readers.recognise import PACKAGES
from atomtrain.data.readers.settle import settled
from atomtrain.data.readers.stored import StoreFile as StoreFile
from atomtrain.data.stored import is_stored
from atomtrain.errors import DataError
from atomtrain.frame import Frame

BUILTIN = ("ase", "metatensor")
AS_IT_IS = Reading()
AT_ONCE = 10_000
"""frames of a piece where a file is read at once, or has them one by one"""


class Files:
    """The files of a data set, each opened at most once."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, str, Reading], DataFile] = {}
        self._joined: dict[tuple[tuple[str, ...], str, Reading], DataFile] = {}

    @property
    def paths(self) -> set[Path]:
        """All that were opened."""
        return {Path(path).resolve() for path, _, _ in self._opened}

    @property
    def lines(self) -> list[str]:
        """For each file of frames that was opened: one line on what was taken from it, and remarks."""
        found = []
        for file in self._opened.values():
            if file.account is not None:
                found.append(file.description)
                found += [f"'{file.path}': {note}" for note in file.account.notes]
        return found

    @property
    def warnings(self) -> list[str]:
        """What readers say may be a mistake."""
        files = [file for file in self._opened.values() if file.account is not None]
        return [f"'{f.path}': {text}" for f in files if f.account for text in f.account.warnings]

    def open(
        self,
        read_from: str | Sequence[str],
        reader: str | None,
        where: str,
        reading: Reading = AS_IT_IS,
    ) -> DataFile:
        """A file, or several that ``read_from`` lists or that match its wildcards, as one.

        ``where`` begins the message if it cannot be read (DataError).
        """
        paths = paths_of(read_from, reader, where)
        if len(paths) == 1:
            return self._open_one(paths[0], reader, where, reading)
        key = (tuple(paths), reader or "", reading)
        if key not in self._joined:
            for path in paths:
                _check_joinable(path, _kind(path, reader, where), where)
            parts = [self._open_one(path, reader, where, reading) for path in paths]
            frames = [part for part in parts if isinstance(part, FramesFile)]
            self._joined[key] = JoinedFiles(display(read_from), frames)
        return self._joined[key]

    def structures(
        self,
        read_from: str | Sequence[str],
        reader: str | None,
        where: str,
        reading: Reading = AS_IT_IS,
    ) -> DataFile:
        """A file, or several, with structures; DataError if there are none."""
        file = self.open(read_from, reader, where, reading)
        if not file.frames:
            raise DataError(f"{where}: '{file.path}' holds no structures")
        return file

    def _open_one(self, path: str, reader: str | None, where: str, reading: Reading) -> DataFile:
        kind = _kind(path, reader, where)
        key = (path, kind, reading)
        if key not in self._opened:
            self._opened[key] = _open(path, kind, where, reading)
        return self._opened[key]


def in_pieces(
    path: str, reader: str | None, where: str, reading: Reading, size: int
) -> Iterator[tuple[DataFile, int]]:
    """A file of frames, piece by piece where its format allows that, with the bytes of text of each piece.

    ``size``: bytes of text of a piece; they are 0 where a file is read at once. Pieces know where in the file they are.
    Raises DataError where it cannot be read, or has no frames with labels.
    """
    kind = _kind(path, reader, where)
    if kind in ("map", "map folder", "zip"):
        raise DataError(
            f"{where}: '{path}' holds maps of metatensor, whose blocks a data set on disk cannot keep; they are "
            "read as they are"
        )
    first = 0
    try:
        for frames, length in _pieces(path, kind, where, reading, size):
            yield _Piece(path, frames, first), length
            first += len(frames)
    except DataError:
        if first:  # read at once it is told by the numbers that frames and lines have in the file
            _open(path, kind, where, reading)
        raise


def _pieces(
    path: str, kind: str, where: str, reading: Reading, size: int
) -> Iterator[tuple[Frames, int]]:
    if kind in ("store", "memmap"):
        file = _open(path, kind, where, reading)
        whole = file.in_frames(where) if isinstance(file, MemmapFile) else file.frames
        for start in range(0, len(whole), AT_ONCE):
            yield Frames(whole[start : start + AT_ONCE], file.account or Account(kind)), 0
        return
    if kind == "ase" and _recognised(path, reading.format, where) == ("", "ase"):
        pieces = read_in_pieces(path, where, reading.format, size)
        if pieces is not None:
            for frames, length in pieces:
                yield settled(frames, reading, path, where), length
            return
    found = frames_of(path, kind, where, reading.format)
    if isinstance(found, Frames):
        found = settled(found, reading, path, where)
    for start in range(0, len(found), AT_ONCE):
        some = found[start : start + AT_ONCE]
        frames = Frames(some, found.account)
        if isinstance(some, LazyFrames):
            frames = settled(frames, reading, path, where)
        yield frames, 0


class _Piece(FramesFile):
    """Some of the frames of a file, of which the ``first`` is that of this number."""

    def __init__(self, path: str, frames: Frames, first: int) -> None:
        super().__init__(path, frames)
        self._first = first

    def origin(self, frame: int) -> tuple[int, int]:
        return 0, self._first + frame


def display(read_from: str | Sequence[str]) -> str:
    """What the options name, for messages and the log."""
    if isinstance(read_from, str):
        return read_from
    more = f" and {len(read_from) - 3} more" if len(read_from) > 3 else ""
    return ", ".join(read_from[:3]) + more


def paths_of(read_from: str | Sequence[str], reader: str | None, where: str) -> list[str]:
    """The files that are meant, in order: as listed, those of a wildcard sorted by name.

    DataError, beginning with ``where``, where a wildcard matches none or a file is meant twice.
    """
    given = [read_from] if isinstance(read_from, str) else read_from
    paths: list[str] = []
    for path in given:
        if Path(path).exists() or not set("*?[").intersection(path):
            paths += _inside(path, reader, where)
            continue
        found = sorted(glob.glob(path, recursive=True))
        if not found and reader in (None, *BUILTIN):
            raise DataError(
                f"{where}: no file matches '{path}' (working directory: {Path.cwd()}); correct the "
                "path or its wildcards"
            )
        for one in found or [path]:  # the names that readers of packages understand are theirs
            paths += _inside(one, reader, where)
    places: dict[Path, str] = {}
    for path in paths if len(paths) > 1 else ():
        place = Path(path).resolve()
        if place in places:
            raise DataError(
                f"{where}: '{path}' is given twice{_as_other(path, places[place])}; its structures "
                "would count twice, name it once"
            )
        places[place] = path
    return paths


def _inside(path: str, reader: str | None, where: str) -> list[str]:
    """The files of a folder that a package's reader reads one by one; else the path itself."""
    if not Path(path).is_dir() or _kind(path, reader, where) not in ("ase", reader):
        return [path]
    found: dict[str, list[str]] = {}
    for name, spec in _readers().items():
        names = spec.files if reader in (None, name) else ()
        files = sorted(str(file) for pattern in names for file in Path(path).glob(pattern))
        if files:
            found[name] = files
    if len(found) > 1:
        raise DataError(
            f"{where}: the folder '{path}' has files of several kinds ({', '.join(found)}); say which with "
            "reader, or name files"
        )
    return next(iter(found.values()), [path])


def _readers() -> dict[str, ReaderSpec]:
    """Readers of packages that know their files."""
    found = components("register_dataset_readers")
    return {name: spec for name, spec in found.items() if isinstance(spec, ReaderSpec)}


def _as_other(path: str, other: str) -> str:
    return "" if path == other else f" (it is '{other}' too)"


def _check_joinable(path: str, kind: str, where: str) -> None:
    whole = {
        "memmap": "a folder of arrays",
        "store": "a data set on disk",
        "map": "a file of maps",
        "map folder": "a folder of maps",
        "zip": "a zip archive",
    }
    if kind in whole:
        raise DataError(
            f"{where}: '{path}' is {whole[kind]}, but only files that are read frame by frame (xyz, "
            "databases, ...) can be listed or matched by wildcards; give it a section of its own"
        )


def _kind(path: str, reader: str | None, where: str) -> str:
    """The format of a file, by the reader that was asked for or by what it looks like."""
    if reader not in (None, "metatensor"):
        assert reader is not None
        return reader
    place = Path(path)
    if place.is_dir():
        if is_stored(place):
            return "store"
        if (place / "ns.npy").exists():
            return "memmap"
        if any(place.glob("*.mts")):
            return "map folder"
    kind = {".mts": "map", ".zip": "zip"}.get(place.suffix.lower())
    if kind is None and reader == "metatensor":
        raise DataError(
            f"{where}: reader 'metatensor' reads .mts files, .zip archives and folders of these "
            f"formats; '{path}' is none"
        )
    return kind or "ase"


def _open(path: str, kind: str, where: str, reading: Reading) -> DataFile:
    if kind in ("store", "memmap", "map", "map folder", "zip"):
        if reading.format:
            raise DataError(
                f"{where}: '{path}' needs no format: it is known what it is; leave format out"
            )
        if kind == "store":
            return StoreFile(path, where)
        if kind == "memmap":
            return MemmapFile(path, where)
        from atomtrain.data.readers import maps

        if kind == "zip":
            return maps.ZipFile(path, where)
        return (maps.MapFile if kind == "map" else maps.MapFolder)(path, where)
    found = frames_of(path, kind, where, reading.format)
    frames = found if isinstance(found, Frames) else Frames(found, found.account)
    if not frames:
        raise DataError(
            f"{where}: '{path}' holds no structures; is it the right file, of the format its name says?"
        )
    return FramesFile(path, settled(frames, reading, path, where))


def frames_of(path: str, reader: str | None, where: str, format: str = "") -> Frames | LazyFrames:
    """What the reader of one file of frames gives, with its account, before it is settled.

    ``reader`` and ``format`` as in the options. :class:`LazyFrames` where the reader can read frames one by
    one. DataError if it cannot be read.
    """
    kind = reader or "ase"
    own = ""
    if kind == "ase":
        own, kind = _recognised(path, format, where)
    more = "" if format == kind else format
    found = OWN[own].read(path, where) if own else _read(path, kind, where, more)
    frames = found if isinstance(found, Frames | LazyFrames) else Frames(found)
    account = frames.account
    account.reader = account.reader or kind
    account.format = account.format or format
    return frames


def _recognised(path: str, format: str, where: str) -> tuple[str, str]:
    """Which of our own formats a file has, or else empty, and which reader reads it (``ase``)."""
    if format:
        return (format, "ase") if format in OWN else ("", format if format in _readers() else "ase")
    try:
        head = b"" if Path(path).is_dir() else beginning(path)
    except (OSError, *DAMAGED):
        return "", "ase"
    own = next((name for name, own in OWN.items() if own.recognises(path, head)), "")
    if own:
        return own, "ase"
    found = [name for name, spec in _readers().items() if spec.recognises(path, head)]
    if len(found) > 1:
        raise DataError(
            f"{where}: '{path}' is a file for several readers; say which with reader: {', '.join(found)}"
        )
    return "", found[0] if found else "ase"


def _read(path: str, reader: str, where: str, format: str) -> Sequence[Frame]:
    """What ASE, or the reader of a package, makes of a file."""
    if reader == "ase":
        return read_ase(path, where, format)
    found = components("register_dataset_readers")
    if reader not in found:
        known = ", ".join([*BUILTIN, *found])
        remedy = f"; install {PACKAGES[reader]}" if reader in PACKAGES else ""
        raise DataError(f"{where}: there is no reader '{reader}' (there are: {known}){remedy}")
    read = found[reader].load()
    takes = "format" in inspect.signature(read).parameters
    if format and not takes:
        raise DataError(f"{where}: the reader '{reader}' takes no format; leave format out")
    frames: Sequence[Frame] = read(path, where, format) if takes else read(path, where)
    return frames
