"""Reading files, whatever their format, as frames and flat rows of labels.

:class:`Files` opens a path as a :class:`~.base.DataFile`: what ASE reads and what readers of packages
give (``frames``), memory-mapped directories (``memmap``), and metatensor's maps (``maps``), one for
all structures or one for each, in a folder or in a zip archive with the structures.

A reader that a package brings (``register_dataset_readers``) is a function ``(path, where) ->
list[Frame]`` that raises DataError, its message beginning with ``where``, for what it cannot read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from atomtrain.contract import components
from atomtrain.data.readers.base import DataFile
from atomtrain.data.readers.frames import FramesFile, read_ase
from atomtrain.data.readers.memmap import MemmapFile
from atomtrain.errors import DataError
from atomtrain.frame import Frame

BUILTIN = ("ase", "metatensor")


class Files:
    """The files of a data set, each opened at most once."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, str], DataFile] = {}

    @property
    def paths(self) -> set[Path]:
        """All that were opened."""
        return {Path(path).resolve() for path, _ in self._opened}

    def open(self, path: str, reader: str | None, where: str) -> DataFile:
        """A file. ``where`` begins the message if it cannot be read (DataError)."""
        kind = _kind(path, reader, where)
        if (path, kind) not in self._opened:
            self._opened[path, kind] = _open(path, kind, where)
        return self._opened[path, kind]

    def frames(self, path: str, reader: str | None, where: str) -> Sequence[Frame]:
        """All structures of a file; DataError if there are none."""
        frames = self.open(path, reader, where).frames
        if not frames:
            raise DataError(f"{where}: '{path}' holds no structures")
        return frames


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
        raise DataError(f"{where}: '{path}' holds no structures")
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
