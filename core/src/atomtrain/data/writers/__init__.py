"""Writing predictions beside their structures, in the formats that ``data.readers`` reads.

:func:`choose_output` takes the format from a name; :meth:`Output.write` writes a file, or a folder,
whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from atomtrain.data.writers.base import Predictions
from atomtrain.data.writers.maps import map_path, write_map, write_zip
from atomtrain.data.writers.memmap import write_memmap
from atomtrain.data.writers.xyz import write_xyz
from atomtrain.errors import OutputError
from atomtrain.files import check_new_folder, replacing, replacing_folder

FORMATS: dict[str, Callable[[Path, Predictions], None]] = {
    ".xyz": write_xyz,
    ".extxyz": write_xyz,
    ".zip": write_zip,
}
"""Formats of a single file by extension."""


@dataclass(frozen=True)
class Output:
    """A place for predictions. ``path`` is as the user gave it; ``folder``: of plain arrays."""

    path: Path
    folder: bool

    def files(self, targets: Iterable[str]) -> list[Path]:
        """What is written: one path, for ``.mts`` one for each target."""
        if not self.folder and self.path.suffix == ".mts":
            return [map_path(self.path, name) for name in targets]
        return [self.path]

    def write(self, predictions: Predictions) -> None:
        """Write; raises OutputError where that is not possible."""
        if self.folder:
            with replacing_folder(self.path) as temporary:
                write_memmap(temporary, predictions)
        elif self.path.suffix == ".mts":
            for name in predictions.targets:
                with replacing(map_path(self.path, name)) as temporary:
                    write_map(temporary, predictions, name)
        else:
            with replacing(self.path) as temporary:
                FORMATS[self.path.suffix](temporary, predictions)


def choose_output(output: str | os.PathLike[str], section: int | None = None) -> Output:
    """The place ``output`` means; ``section`` is the number to put into its name, if any.

    A name that ends in a slash or has no extension is a folder. Raises OutputError for an unknown
    extension and for places that cannot be written to.
    """
    path = Path(output)
    folder = str(output).endswith(("/", os.sep)) or not path.suffix
    if folder != (path.suffix not in (*FORMATS, ".mts")):
        known = ", ".join([*FORMATS, ".mts"])
        problem = (
            "an archive or file cannot end in a slash"
            if folder
            else f"predictions are written as {known} by the extension of the name, or as a folder "
            "of arrays if it ends in a slash"
        )
        raise OutputError(f"'{output}': {problem}")
    if section is not None:
        path = path.with_name(
            f"{path.name}_{section}" if folder else f"{path.stem}_{section}{path.suffix}"
        )
    if not path.parent.is_dir():
        raise OutputError(f"cannot write '{path}': there is no directory '{path.parent}'")
    if folder:
        check_new_folder(path)
    return Output(path, folder)
