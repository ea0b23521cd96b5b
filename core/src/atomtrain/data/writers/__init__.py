"""Writing predictions beside their structures, in the formats that ``data.readers`` reads.

:func:`choose_output` takes the format from a name; :meth:`Output.write` writes a file, or a folder,
whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from atomtrain.data.readers.content import PACKING
from atomtrain.data.writers.ase_files import write_db, write_json, write_traj, write_xyz
from atomtrain.data.writers.base import Predictions
from atomtrain.data.writers.maps import map_path, write_map, write_zip
from atomtrain.data.writers.memmap import write_memmap
from atomtrain.errors import OutputError
from atomtrain.files import check_new_folder, replacing, replacing_folder

FORMATS: dict[str, Callable[[Path, Predictions], None]] = {
    ".xyz": write_xyz,
    ".extxyz": write_xyz,
    ".traj": write_traj,
    ".db": write_db,
    ".json": write_json,
    ".zip": write_zip,
}
"""Formats of a single file by extension, in any case."""
_PACKED = [f"{text}{pack}" for text in (".xyz", ".extxyz") for pack in PACKING]
FORMATS.update(dict.fromkeys(_PACKED, write_xyz))
MAPS = ".mts"


@dataclass(frozen=True)
class Output:
    """A place for predictions. ``path`` is as the user gave it; ``folder``: of plain arrays."""

    path: Path
    folder: bool

    def files(self, targets: Iterable[str]) -> list[Path]:
        """What is written: one path, for ``.mts`` one for each target."""
        if not self.folder and _extension(self.path) == MAPS:
            return [map_path(self.path, name) for name in targets]
        return [self.path]

    def write(self, predictions: Predictions) -> None:
        """Write; raises OutputError where that is not possible."""
        if self.folder:
            with replacing_folder(self.path) as temporary:
                write_memmap(temporary, predictions)
        elif _extension(self.path) == MAPS:
            for name in predictions.targets:
                with replacing(map_path(self.path, name)) as temporary:
                    write_map(temporary, predictions, name)
        else:
            with replacing(self.path) as temporary:
                FORMATS[_extension(self.path)](temporary, predictions)


def choose_output(output: str | os.PathLike[str], section: int | None = None) -> Output:
    """The place ``output`` means; ``section`` is the number to put into its name, if any.

    A name that ends in a slash or has no extension is a folder. Raises OutputError for an unknown
    extension and for places that cannot be written to.
    """
    path = Path(output)
    extension = _extension(path)
    folder = str(output).endswith(("/", os.sep)) or not extension
    if folder != (extension not in (*FORMATS, MAPS)):
        known = ", ".join([*(name for name in FORMATS if name not in _PACKED), MAPS])
        problem = (
            "an archive or file cannot end in a slash"
            if folder
            else f"predictions are written as {known} (xyz also packed: .xyz.gz, .bz2, .xz) by the "
            "extension of the name, or as a folder of arrays if it ends in a slash"
        )
        raise OutputError(f"'{output}': {problem}")
    if section is not None:
        stem, ending = path.name, ""
        if not folder:
            stem, ending = path.name[: -len(extension)], path.name[-len(extension) :]
        path = path.with_name(f"{stem}_{section}{ending}")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write '{path}': there is no directory '{path.parent}'")
    if folder:
        check_new_folder(path)
    return Output(path, folder)


def _extension(path: Path) -> str:
    """The extension in lower case, with that before it where the file is packed."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() + suffix if suffix in PACKING else suffix
