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
        self.used = 0
        self._known: dict[str, Tables] = {}

    def tables(
        self, key: str, examples: Mapping[str, Tensor], rows: int, fill: Callable[[Tables], None]
    ) -> Tables:
        """The tables called ``key``, with ``rows`` rows that look like those of ``examples``.

        ``fill`` writes them where they are not known yet. Raises OutputError where a file cannot be
        written.
        """
        if key in self._known:
            return self._known[key]
        size = _layout(examples, rows)[1]
        if self.folder is not None:
            made = self._in_folder(self.folder, key, examples, rows, fill)
        elif self.used + size <= self.budget:
            made = {n: t.new_empty((rows, *t.shape[1:]), device="cpu") for n, t in examples.items()}
            fill(made)
            self.used += size
        else:
            made = self._in_scratch(size, examples, rows)
            fill(made)
        self._known[key] = made
        return made

    def _in_folder(
        self,
        folder: Path,
        key: str,
        examples: Mapping[str, Tensor],
        rows: int,
        fill: Callable[[Tables], None],
    ) -> Tables:
        size = _layout(examples, rows)[1]
        shapes = [f"{n} {tuple(t.shape[1:])} {t.dtype}" for n, t in sorted(examples.items())]
        name = hashlib.sha256("\n".join([key, *shapes]).encode()).hexdigest()[:32]
        path = folder / f"{name}.features"
        if path.is_file() and path.stat().st_size == size:
            log.info("features found in '%s'", path)
            return _mapped(path, examples, rows)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, suffix=".partial")
            os.close(handle)
            try:
                fill(_mapped(Path(temporary), examples, rows))
                os.replace(temporary, path)  # whole or not there at all
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except (OSError, RuntimeError) as error:
            raise OutputError(f"cannot keep features in '{folder}': {error}") from error
        return _mapped(path, examples, rows)

    def _in_scratch(self, size: int, examples: Mapping[str, Tensor], rows: int) -> Tables:
        log.info(
            "features: %.1f GB, more than memory_budget leaves; they are kept in a file", size / 1e9
        )
        try:
            handle, name = tempfile.mkstemp(dir=self.scratch, suffix=".features")
            os.close(handle)
            made = _mapped(Path(name), examples, rows)
        except (OSError, RuntimeError) as error:
            where = self.scratch or tempfile.gettempdir()
            raise OutputError(f"cannot keep features in a file in '{where}': {error}") from error
        with contextlib.suppress(OSError):  # the mapping outlives the name; not on Windows
            os.unlink(name)
        return made


def _layout(examples: Mapping[str, Tensor], rows: int) -> tuple[dict[str, tuple[int, int]], int]:
    """Where each table begins and ends in a file, and the file's size."""
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for name, example in sorted(examples.items()):
        size = rows * math.prod(example.shape[1:]) * example.element_size()
        places[name] = (end, end + size)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return places, end


def _mapped(path: Path, examples: Mapping[str, Tensor], rows: int) -> Tables:
    """The file as tables; it is made, or made longer, where it is too short."""
    places, size = _layout(examples, rows)
    whole = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
    return {
        name: whole[start:stop].view(examples[name].dtype).view(rows, *examples[name].shape[1:])
        for name, (start, stop) in places.items()
    }
