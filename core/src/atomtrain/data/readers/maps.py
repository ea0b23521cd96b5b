"""Metatensor's maps: one ``.mts`` file for all structures, or one for each of them.

Maps for each structure are in a folder (``<k>.mts``, ``k`` counted from 0) or in a zip archive with
a folder for each structure: ``<k>/system.mta`` (metatomic's format of a structure, may be absent
from all) and ``<k>/<key>.mts``, which the archive holds as they are or wrapped as an array of bytes
in numpy's format. Nothing else in the archive is looked at.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import metatensor.torch
import metatomic.torch
import numpy as np
import torch
from metatensor.torch import TensorBlock, TensorMap

from atomtrain.data.readers.base import DataFile, GradientKind, Rows, Wanted, existing, listed
from atomtrain.errors import DataError, first_line
from atomtrain.files import file_stem
from atomtrain.frame import Frame
from atomtrain.targets import TargetInfo
from atomtrain.targets.maps import block_counts, matching_blocks

ENERGY = TargetInfo("energy", quantity="energy")
MEMBER = re.compile(r"(0|[1-9]\d*)/([^/]+)\.(mta|mts)")


class _Maps(DataFile):
    """What the formats have in common: maps, of all structures or of one.

    ``count``: how many structures there are maps of, where that can be told; ``holds`` says so.
    """

    count: int = 0
    holds: str = ""

    @abstractmethod
    def _maps(self, key: str, wanted: Wanted) -> Iterator[tuple[str, int | None, TensorMap]]:
        """The name of each map for messages, the structure it is of (None: all), and the map."""

    def properties(self, key: str, wanted: Wanted) -> dict[tuple[int, ...], int]:
        """Those of the first map there is."""
        found = next((found for _, _, found in self._maps(key, wanted)), None)
        return {} if found is None else block_counts(found)

    def target(self, key: str, info: TargetInfo, wanted: Wanted) -> Rows:
        collected = _Collected(wanted, info.per_atom, info.width, f"'{key}'")
        for name, only, found in self._maps(key, wanted):
            try:
                self._add_values(collected, info, _numbers(found, only, wanted), found)
            except ValueError as error:
                raise _does_not_fit(wanted, name, info.name, error) from None
        return collected.rows

    def gradient(self, key: str, kind: GradientKind, energy: str, wanted: Wanted) -> Rows:
        """From the gradients ``positions`` and ``strain`` of the energy; ``key`` is not used."""
        forces = kind == "forces"
        parameter, shape = ("positions", (3, 1)) if forces else ("strain", (3, 3, 1))
        collected = _Collected(wanted, forces, 3 if forces else 9, f"gradient '{parameter}'")
        for name, only, found in self._maps(energy, wanted):
            try:
                block = matching_blocks(ENERGY, found)[0]
                if not block.has_gradient(parameter):
                    continue
                gradient = block.gradient(parameter)
                needed = ["sample", "atom"] if forces else ["sample"]
                if gradient.values.shape[1:] != shape or not set(needed) <= set(
                    gradient.samples.names
                ):
                    raise ValueError(
                        f"the gradient '{parameter}' has samples "
                        f"{' and '.join(gradient.samples.names)} and the shape "
                        f"{list(gradient.values.shape)}, expected {' and '.join(needed)}, "
                        f"{['n', *shape]}"
                    )
                parents = _column(block, "system")[_column(gradient, "sample")]
                values = _values(gradient)
                collected.put(
                    slice(None),
                    _numbers(found, only, wanted)(parents),
                    _column(gradient, "atom") if forces else None,
                    -values if forces else values,
                )
            except ValueError as error:
                raise _does_not_fit(wanted, name, energy, error) from None
        return collected.rows

    def check(self, wanted: Wanted) -> None:
        super().check(wanted)
        if self.count > len(wanted.structures):
            raise DataError(
                f"{wanted.where}: '{self.path}' {self.holds} {self.count} structures, but there are "
                f"{len(wanted.structures)}"
            )

    @staticmethod
    def _add_values(
        collected: _Collected, info: TargetInfo, numbers: _Numbers, found: TensorMap
    ) -> None:
        for (_, columns, _), block in zip(info.parts, matching_blocks(info, found), strict=True):
            atoms = _column(block, "atom") if info.per_atom else None
            collected.put(columns, numbers(_column(block, "system")), atoms, _values(block))


class MapFile(_Maps):
    """One map for all structures; its ``system`` labels number them from 0 (see :func:`_numbers`).

    There is one quantity in it, so keys are not looked at.
    """

    def __init__(self, path: str, where: str) -> None:
        super().__init__(path)
        self._map = _load(existing(path, where).read_bytes(), path, where)

    @property
    def keys(self) -> set[str]:
        return {
            f"gradient '{name}'" for block in self._map.blocks() for name in block.gradients_list()
        }

    def _maps(self, key: str, wanted: Wanted) -> Iterator[tuple[str, int | None, TensorMap]]:
        yield self.path, None, self._map


class MapFolder(_Maps):
    """A folder of maps, ``<k>.mts`` for structure ``k``; keys are not looked at."""

    holds = "holds maps for"

    def __init__(self, path: str, where: str) -> None:
        super().__init__(path)
        self._files = {
            int(f.stem): f for f in Path(path).glob("*.mts") if re.fullmatch(r"\d+", f.stem)
        }
        if not self._files:
            raise DataError(
                f"{where}: the maps in the folder '{path}' must be called 0.mts, 1.mts, ..., after "
                "the number of the structure"
            )
        self.count = max(self._files) + 1

    def _maps(self, key: str, wanted: Wanted) -> Iterator[tuple[str, int | None, TensorMap]]:
        for k in wanted.chosen:
            if k in self._files:
                file = self._files[k]
                yield str(file), k, _load(file.read_bytes(), str(file), wanted.where)


class ZipFile(_Maps):
    """A zip archive with a folder for each structure."""

    holds = "has folders for"

    def __init__(self, path: str, where: str) -> None:
        super().__init__(path)
        fields: dict[str, set[int]] = {}
        systems: set[int] = set()
        with _opened(path, where) as archive:
            for name in archive.namelist():
                member = MEMBER.fullmatch(name)
                if member is None:
                    continue
                if member[3] == "mts":
                    fields.setdefault(member[2], set()).add(int(member[1]))
                elif member[2] == "system":
                    systems.add(int(member[1]))
            self._fields = fields
            self.count = 1 + max(systems.union(*fields.values()), default=-1)
            if self.count == 0:
                raise DataError(
                    # an archive cut short looks like this too: the one last packed in it is found
                    f"{where}: '{path}' holds neither structures ('0/system.mta', '1/system.mta', "
                    "...) nor labels ('0/<key>.mts', ...), or it is damaged"
                )
            lacking = sorted(set(range(self.count)) - systems)
            if lacking and systems:
                raise DataError(
                    f"{where}: '{path}' has folders without 'system.mta' ({listed(lacking)}); "
                    "folders are counted from 0 without a gap, and all have a structure or none"
                )
            self.frames = [_frame(archive, k, path, where) for k in range(len(systems))]

    @property
    def keys(self) -> set[str]:
        return set(self._fields)

    def _maps(self, key: str, wanted: Wanted) -> Iterator[tuple[str, int | None, TensorMap]]:
        field = file_stem(key)
        there = self._fields.get(field, set())
        with _opened(self.path, wanted.where) as archive:
            for k in wanted.chosen:
                if k in there:
                    name = f"{k}/{field}.mts"
                    content = _member(archive, name, self.path, wanted.where)
                    full = f"{self.path}:{name}"
                    yield full, k, _load(content, full, wanted.where)


class _Collected:
    """Rows being filled: where in them the samples of a structure go, and no further."""

    def __init__(self, wanted: Wanted, per_atom: bool, width: int, name: str) -> None:
        self.rows = Rows.absent(wanted, per_atom, width, name)
        self._n_atoms = wanted.n_atoms
        counts = wanted.counts(per_atom)
        self._first = np.full(len(self._n_atoms), -1, dtype=np.int64)
        self._first[np.asarray(wanted.chosen, dtype=np.int64)] = np.cumsum(counts) - counts

    def put(
        self,
        columns: slice,
        structures: np.ndarray,
        atoms: np.ndarray | None,
        values: np.ndarray,
    ) -> None:
        """``values [n, width]`` of ``structures [n]`` (and their ``atoms [n]``)."""
        keep = self._first[structures] >= 0
        structures, values = structures[keep], values[keep]
        rows = self._first[structures]
        if atoms is not None:
            atoms = atoms[keep]
            wrong = (atoms < 0) | (atoms >= self._n_atoms[structures])
            if wrong.any():
                k = structures[wrong][0]
                raise ValueError(
                    f"it has a value for atom {atoms[wrong][0]} of structure {k}, which has "
                    f"{self._n_atoms[k]} atoms (counted from 0)"
                )
            rows = rows + atoms
        self.rows.values[rows, columns] = values
        self.rows.there[rows, columns] = True


_Numbers = Callable[[np.ndarray], np.ndarray]


def _numbers(found: TensorMap, only: int | None, wanted: Wanted) -> _Numbers:
    """From ``system`` labels of a map to numbers of structures.

    Labels are the numbers. Only where they count the structures from another number on, one by one and
    in this order, is the first number the first structure; the labels in a map of one structure stand
    for that one.
    """
    columns = [_column(block, "system") for block in found.blocks()]
    ids = np.unique(np.concatenate(columns))
    n = len(wanted.structures)
    if only is not None:
        if len(ids) > 1:
            raise ValueError(f"it must be of one structure, but has {len(ids)} values of 'system'")
        return lambda systems: np.full_like(systems, only)
    if len(ids) == 0 or (ids[0] >= 0 and ids[-1] < n):
        return lambda systems: systems
    ascending = all((np.diff(column) >= 0).all() for column in columns)
    if len(ids) == n and ids[-1] - ids[0] == n - 1 and ascending:
        return lambda systems: systems - ids[0]
    strange = ids[(ids < 0) | (ids >= n)]
    lacking = np.setdiff1d(np.arange(n), ids)
    also = f", and none of {_few(lacking)}" if len(lacking) else ""
    raise ValueError(
        f"its samples are of {len(ids)} systems; there are {n} structures, numbered 0 to {n - 1}, so that "
        f"no structure is {_few(strange)}{also}; give 'system' the numbers of the structures"
    )


def _few(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers[:8].tolist())) + (", ..." if len(numbers) > 8 else "")


def _column(block: TensorBlock, name: str) -> np.ndarray:
    if name not in block.samples.names:
        raise ValueError(f"its samples are {' and '.join(block.samples.names)}, without '{name}'")
    return block.samples.column(name).numpy().astype(np.int64)


def _values(block: TensorBlock) -> np.ndarray:
    return block.values.to(torch.float64).flatten(1).numpy()


@contextlib.contextmanager
def _reading(failed: str) -> Iterator[None]:
    """DataError, beginning with ``failed``, for whatever metatensor, torch, numpy or zipfile raise."""
    try:
        yield
    except Exception as error:
        raise DataError(f"{failed}: {first_line(error, typed=True)}") from error


def _load(content: bytes, name: str, where: str) -> TensorMap:
    with _reading(f"{where}: '{name}' cannot be read as a metatensor TensorMap"):
        if content.startswith(b"\x93NUMPY"):
            content = np.load(io.BytesIO(content)).tobytes()
        buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return metatensor.torch.load_buffer(buffer)


def _frame(archive: zipfile.ZipFile, k: int, path: str, where: str) -> Frame:
    name = f"{k}/system.mta"
    content = _member(archive, name, path, where)
    with _reading(f"{where}: '{name}' in '{path}' cannot be read as a metatomic System"):
        system = metatomic.torch.load_system(io.BytesIO(content))
    return Frame(
        system.types.numpy().astype(np.int64),
        system.positions.numpy().astype(np.float64),
        system.cell.numpy().astype(np.float64),
        system.pbc.numpy().astype(bool),
    )


def _opened(path: str, where: str) -> zipfile.ZipFile:
    with _reading(f"{where}: '{existing(path, where)}' is not a zip archive"):
        return zipfile.ZipFile(path)


def _member(archive: zipfile.ZipFile, name: str, path: str, where: str) -> bytes:
    with _reading(f"{where}: cannot read '{name}' in '{path}'"):  # damaged, encrypted, ...
        return archive.read(name)


def _does_not_fit(wanted: Wanted, file: str, target: str, error: ValueError) -> DataError:
    return DataError(f"{wanted.where}: the map in '{file}' does not fit '{target}': {error}")
