"""Reading files, whatever their format, as frames and flat rows of labels.

:class:`Files` opens a path as a :class:`~.base.DataFile`: what ASE reads and what readers of packages
give (``frames``), memory-mapped directories (``memmap``), and metatensor's maps (``maps``), one for
all structures or one for each, in a folder or in a zip archive with the structures.

A list of files, or a name with wildcards, is one :class:`DataFile` if all are read frame by frame.

A reader that a package brings (``register_dataset_readers``) is a function ``(path, where) ->
list[Frame]`` that raises DataError, its message beginning with ``where``, for what it cannot read.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from atomtrain.contract import components
from atomtrain.data.readers.ase_files import read_ase
from atomtrain.data.readers.base import DataFile
from atomtrain.data.readers.frames import FramesFile, JoinedFiles
from atomtrain.data.readers.memmap import MemmapFile
from atomtrain.errors import DataError
from atomtrain.frame import Frame

BUILTIN = ("ase", "metatensor")


class Files:
    """The files of a data set, each opened at most once."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, str], DataFile] = {}
        self._joined: dict[tuple[tuple[str, ...], str], DataFile] = {}

    @property
    def paths(self) -> set[Path]:
        """All that were opened."""
        return {Path(path).resolve() for path, _ in self._opened}

    def open(self, read_from: str | Sequence[str], reader: str | None, where: str) -> DataFile:
        """A file, or several that ``read_from`` lists or that match its wildcards, as one.

        ``where`` begins the message if it cannot be read (DataError).
        """
        paths = _paths(read_from, reader, where)
        if len(paths) == 1:
            return self._open_one(paths[0], reader, where)
        key = (tuple(paths), reader or "")
        if key not in self._joined:
            for path in paths:
                _check_joinable(path, _kind(path, reader, where), where)
            parts = [self._open_one(path, reader, where) for path in paths]
            frames = [part for part in parts if isinstance(part, FramesFile)]
            self._joined[key] = JoinedFiles(display(read_from), frames)
        return self._joined[key]

    def frames(
        self, read_from: str | Sequence[str], reader: str | None, where: str
    ) -> Sequence[Frame]:
        """All structures of a file, or of several; DataError if there are none."""
        return self.structures(read_from, reader, where).frames

    def structures(
        self, read_from: str | Sequence[str], reader: str | None, where: str
    ) -> DataFile:
        """A file, or several, with structures; DataError if there are none."""
        file = self.open(read_from, reader, where)
        if not file.frames:
            raise DataError(f"{where}: '{file.path}' holds no structures")
        return file

    def _open_one(self, path: str, reader: str | None, where: str) -> DataFile:
        kind = _kind(path, reader, where)
        if (path, kind) not in self._opened:
            self._opened[path, kind] = _open(path, kind, where)
        return self._opened[path, kind]


def display(read_from: str | Sequence[str]) -> str:
    """What the options name, for messages and the log."""
    if isinstance(read_from, str):
        return read_from
    more = f" and {len(read_from) - 3} more" if len(read_from) > 3 else ""
    return ", ".join(read_from[:3]) + more


def _paths(read_from: str | Sequence[str], reader: str | None, where: str) -> list[str]:
    """The files that are meant, in order: as listed, those of a wildcard sorted by name."""
    given = [read_from] if isinstance(read_from, str) else read_from
    paths: list[str] = []
    for path in given:
        if Path(path).exists() or not set("*?[").intersection(path):
            paths.append(path)
            continue
        found = sorted(glob.glob(path, recursive=True))
        if not found and reader in (None, *BUILTIN):
            raise DataError(
                f"{where}: no file matches '{path}' (working directory: {Path.cwd()}); correct the "
                "path or its wildcards"
            )
        paths += found or [path]  # the names that readers of packages understand are theirs
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


def _as_other(path: str, other: str) -> str:
    return "" if path == other else f" (it is '{other}' too)"


def _check_joinable(path: str, kind: str, where: str) -> None:
    whole = {
        "memmap": "a folder of arrays",
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


def _open(path: str, kind: str, where: str) -> DataFile:
    if kind == "memmap":
        return MemmapFile(path, where)
    if kind in ("map", "map folder", "zip"):
        from atomtrain.data.readers import maps

        if kind == "zip":
            return maps.ZipFile(path, where)
        return (maps.MapFile if kind == "map" else maps.MapFolder)(path, where)
    frames = _reader(kind, where)(path, where)
    if not frames:
        raise DataError(
            f"{where}: '{path}' holds no structures; is it the right file, of the format its name says?"
        )
    return FramesFile(path, frames)


def _reader(name: str, where: str) -> Callable[[str, str], list[Frame]]:
    if name == "ase":
        return read_ase
    found = components("register_dataset_readers")
    if name not in found:
        known = ", ".join([*BUILTIN, *found])
        raise DataError(f"{where}: there is no reader '{name}' (there are: {known})")
    reader: Callable[[str, str], list[Frame]] = found[name].load()
    return reader
