"""Tables of what was computed of whole structures, in memory or mapped from files."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from atomtrain.errors import OutputError
from atomtrain.files import replacing

log = logging.getLogger("atomtrain")
ALIGNMENT = 64

Tables = dict[str, Tensor]


class Kept:
    """Tables by key: found again by everything in a run that looks at the same structures.

    They are in memory up to ``budget`` bytes, then in files that vanish with the process, in
    ``scratch`` (absent: the system's folder for temporary files). With a ``folder`` they are in files
    there instead, for later runs; a key that says what they were computed from, structures and
    weights, is what makes such a file outdated.
    """

    def __init__(
        self, budget: int, *, folder: Path | str | None = None, scratch: Path | None = None
    ) -> None:
        self.budget = budget
        self.folder = None if folder is None else Path(folder)
        self.scratch = scratch
        self.adds_files = True
        """whether the folder gets new files; those that are there are used in any case"""
        self.used = 0
        self._known: dict[str, Tables] = {}

    def tables(
        self, key: str, examples: Mapping[str, Tensor], rows: int, fill: Callable[[Tables], None]
    ) -> Tables:
        """The tables called ``key``, with ``rows`` rows that look like those of ``examples``.

        ``fill`` writes them where they are not known yet. Raises OutputError where a file cannot be
        written.
        """
        if key not in self._known:
            self._known[key] = self._made(key, _Layout(dict(examples), rows), fill)
        return self._known[key]

    def _made(self, key: str, layout: _Layout, fill: Callable[[Tables], None]) -> Tables:
        if self.folder is not None:
            path = self._path(self.folder, key, layout)
            if self.adds_files or path.is_file():
                return self._in_folder(path, layout, fill)
        if self.used + layout.size <= self.budget:
            made = {
                name: example.new_empty((layout.rows, *example.shape[1:]), device="cpu")
                for name, example in layout.examples.items()
            }
            self.used += layout.size
        else:
            made = self._in_scratch(layout)
        fill(made)
        return made

    def _path(self, folder: Path, key: str, layout: _Layout) -> Path:
        shapes = [f"{n} {tuple(t.shape[1:])} {t.dtype}" for n, t in sorted(layout.examples.items())]
        name = hashlib.sha256("\n".join([key, *shapes]).encode()).hexdigest()[:32]
        return folder / f"{name}.features"

    def _in_folder(self, path: Path, layout: _Layout, fill: Callable[[Tables], None]) -> Tables:
        if path.is_file() and path.stat().st_size == layout.size:
            log.info("features found in '%s'", path)
            return layout.mapped(path)
        folder = path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                fill(layout.mapped(temporary))
        except (OSError, RuntimeError, OutputError) as error:
            raise OutputError(f"cannot keep features in '{folder}': {error}") from error
        return layout.mapped(path)

    def _in_scratch(self, layout: _Layout) -> Tables:
        log.info(
            "features: %.1f GB, more than memory_budget leaves; they are kept in a file",
            layout.size / 1e9,
        )
        try:
            handle, name = tempfile.mkstemp(dir=self.scratch, suffix=".features")
            os.close(handle)
            made = layout.mapped(Path(name))
        except (OSError, RuntimeError) as error:
            where = self.scratch or tempfile.gettempdir()
            raise OutputError(f"cannot keep features in a file in '{where}': {error}") from error
        with contextlib.suppress(OSError):  # the mapping outlives the name; not on Windows
            os.unlink(name)
        return made


class _Layout:
    """Tables with ``rows`` rows that look like those of ``examples``, one after the other in a file.

    ``places``: where each begins and ends, in bytes; ``size``: of the file.
    """

    def __init__(self, examples: Tables, rows: int) -> None:
        self.examples, self.rows = examples, rows
        self.places: dict[str, tuple[int, int]] = {}
        self.size = 0
        for name, example in sorted(examples.items()):
            size = rows * math.prod(example.shape[1:]) * example.element_size()
            self.places[name] = (self.size, self.size + size)
            self.size += -(-size // ALIGNMENT) * ALIGNMENT

    def mapped(self, path: Path) -> Tables:
        """The file as tables; it is made, or made longer, where it is too short."""
        whole = torch.from_file(str(path), shared=True, size=self.size, dtype=torch.uint8)
        found = {}
        for name, (start, stop) in self.places.items():
            example = self.examples[name]
            found[name] = whole[start:stop].view(example.dtype).view(self.rows, *example.shape[1:])
        return found
