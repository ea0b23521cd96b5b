"""What every reader gives: a file, opened, that answers for structures and for labels.

A label is asked for by what the options say of it and comes back as flat rows (see
:mod:`atomtrain.targets.layout`), whatever the file is. What the file does not have is said, not
judged: what may be missing is decided in :mod:`atomtrain.data.labels`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from atomtrain.data.checks import problem
from atomtrain.data.readers.account import Account, described
from atomtrain.data.store import StructureStore
from atomtrain.errors import DataError
from atomtrain.frame import Frame
from atomtrain.targets import TargetInfo

GradientKind = Literal["forces", "stress", "virial"]


@dataclass(frozen=True)
class Wanted:
    """The structures labels are wanted for: ``structures[k]`` for each ``k`` of ``chosen``.

    ``where`` begins the messages of errors; ``flags``: True and False are numbers there (masks).
    """

    structures: Sequence[Frame]
    chosen: Sequence[int]
    where: str
    flags: bool = False

    @cached_property
    def n_atoms(self) -> np.ndarray:
        """Atoms of *all* structures, [n_structures] int64."""
        known: np.ndarray | None = getattr(self.structures, "n_atoms", None)
        if known is not None:
            return known
        return np.array([len(frame.numbers) for frame in self.structures], dtype=np.int64)

    def counts(self, per_atom: bool) -> np.ndarray:
        """Rows of each chosen structure, [n_chosen] int64."""
        chosen = np.asarray(self.chosen, dtype=np.int64)
        return self.n_atoms[chosen] if per_atom else np.ones(len(chosen), dtype=np.int64)

    def parts(self, per_atom: bool) -> Iterator[tuple[int, slice]]:
        """Each chosen structure, and where its rows are among those of the chosen ones."""
        start = 0
        for k, count in zip(self.chosen, self.counts(per_atom).tolist(), strict=True):
            yield k, slice(start, start + count)
            start += count


@dataclass
class Rows:
    """Labels of the chosen structures as a file has them.

    ``values [n_rows, width]`` float64 (NaN as in the file), ``there [n_rows, width]`` False where
    the file has nothing; ``name`` is what was looked for, for messages.
    """

    values: np.ndarray
    there: np.ndarray
    name: str
    per_atom: bool

    @classmethod
    def absent(cls, wanted: Wanted, per_atom: bool, width: int, name: str) -> Rows:
        """Nothing for any structure."""
        shape = (int(wanted.counts(per_atom).sum()), width)
        return cls(np.zeros(shape), np.zeros(shape, dtype=bool), name, per_atom)

    def put(self, part: slice | np.ndarray, values: np.ndarray) -> None:
        """What a file has for some of the rows."""
        self.values[part] = values
        self.there[part] = True


class DataFile(ABC):
    """A file or folder of structures, of labels, or of both, opened.

    ``frames`` are the structures; empty where the file holds labels alone. ``account``: how they were
    read, where a reader says so. ``checked``: structures were looked at before, when the file was made.
    """

    checked = False

    def __init__(self, path: str, frames: Sequence[Frame] = ()) -> None:
        self.path = path
        self.frames = frames
        self.account: Account | None = getattr(frames, "account", None)

    @property
    def description(self) -> str:
        """One line for the log: what was taken from the file, and as what; empty: nothing is known of it."""
        return "" if self.account is None else described(self.path, self.frames, self.account)

    @property
    def keys(self) -> set[str]:
        """Names of all the values there are, for messages."""
        return set()

    @property
    def files(self) -> list[str]:
        """The files whose frames these are, as they are to be named."""
        return [self.path]

    def origin(self, frame: int) -> tuple[int, int]:
        """Which of ``files`` a frame is in, and its number in there."""
        return 0, frame

    def named(self, frames: Sequence[int]) -> str:
        """``frames 1, 3, ... of 'a.xyz'`` for messages: true names and numbers."""
        found: dict[int, list[int]] = {}
        for frame in frames:
            file, number = self.origin(frame)
            found.setdefault(file, []).append(number)
        parts = [f"{listed(numbers)} of '{self.files[file]}'" for file, numbers in found.items()]
        return ", ".join(parts[:3]) + (", ..." if len(parts) > 3 else "")

    def periodic(self, frames: Sequence[int]) -> np.ndarray:
        """Whether each of these structures is periodic in all directions, [n] bool."""
        return np.array([self.frames[k].pbc.all() for k in frames], dtype=bool)

    @cached_property
    def has_fixed(self) -> bool:
        """Whether constraints held any atom."""
        return any(frame.fixed is not None for frame in self.frames)

    def packed(self, frames: Sequence[int], where: str) -> StructureStore:
        """These structures; DataError, beginning with ``where``, for those no model can take."""
        picked = [self.frames[k] for k in frames]
        for k, frame in zip(frames, picked, strict=True):
            reason = problem(frame)
            if reason:
                raise DataError(f"{where}: {reason.format(self.named([k]))}")
        counts = np.cumsum([0] + [len(f.numbers) for f in picked])
        return StructureStore(
            positions=torch.from_numpy(
                np.concatenate([f.positions for f in picked]).astype(np.float64, copy=False)
            ),
            types=torch.from_numpy(np.concatenate([f.numbers for f in picked])),
            cells=torch.from_numpy(
                # a cell vector means nothing along a direction that is not periodic
                np.stack([np.where(f.pbc[:, None], f.cell, 0.0) for f in picked])
            ),
            pbc=torch.from_numpy(np.stack([f.pbc for f in picked])),
            offsets=torch.from_numpy(counts),
            files=self.files,
            origins=torch.tensor([self.origin(k) for k in frames], dtype=torch.int64),
        )

    def resembling(self, kind: GradientKind) -> list[str]:
        """Names of values that look like a gradient of an energy, the likeliest first."""
        return []

    def properties(self, key: str, wanted: Wanted) -> dict[tuple[int, ...], int]:
        """Number of properties of each block under ``key``, where the format tells; empty: it does not.

        Blocks are called ``(o3_lambda, o3_sigma)``, or ``()`` where there is one alone.
        """
        return {}

    def flag(self, key: str) -> bool:
        """Whether ``key`` stands alone in the file, without a value."""
        return False

    def stated_unit(self, key: str) -> str:
        """The unit that the file itself says its values called ``key`` have; empty: it says nothing."""
        return ""

    def compression(self, key: str) -> bool:
        """Whether the file shows that its stress ``key`` is positive under compression."""
        return False

    def length_units(self) -> dict[str, str]:
        """By file: the unit of length that it is known to have, for files that leave no choice."""
        return {}

    @abstractmethod
    def target(self, key: str, info: TargetInfo, wanted: Wanted) -> Rows:
        """Rows of the values called ``key``, in the layout of ``info``.

        Raises DataError where the values do not fit the layout or the structures.
        """

    def raw(self, key: str, info: TargetInfo, wanted: Wanted) -> list[Any]:
        """What the file has under ``key`` for each chosen structure, as it is; None: nothing.

        For labels that are not plain numbers. Formats that hold numbers only give arrays of
        ``info.width`` of them, or of as many as there are, or of one, for each sample.
        """
        widths = list(dict.fromkeys((info.width, self.properties(key, wanted).get((), 1), 1)))
        for n in widths:
            plain = replace(info, kind="scalar", layout="scalar", num_subtargets=n, classes=())
            try:
                rows = self.target(key, plain, wanted)
                break
            except DataError:
                if n == widths[-1]:
                    raise
        parts = [part for _, part in wanted.parts(info.per_atom)]
        return [rows.values[part] if rows.there[part].all() else None for part in parts]

    @abstractmethod
    def gradient(self, key: str, kind: GradientKind, energy: str, wanted: Wanted) -> Rows:
        """Forces ``[n_atoms, 3]``, or dE/d(strain) ``[n_structures, 9]`` for stress and virial.

        ``key`` is the name of the values, ``energy`` that of the energy they belong to: formats
        look for the one or the other. Raises DataError as :meth:`target`.
        """

    def check(self, wanted: Wanted) -> None:
        """Raise DataError unless the file's structures, if any, are those of ``wanted``."""
        structures, frames = wanted.structures, self.frames
        if not frames or frames is structures:
            return
        if len(frames) != len(structures):
            raise DataError(
                f"{wanted.where}: '{self.path}' holds {len(frames)} frames, but there are "
                f"{len(structures)} structures"
            )
        other = [
            k for k in wanted.chosen if not np.array_equal(frames[k].numbers, structures[k].numbers)
        ]
        if other:
            raise DataError(
                f"{wanted.where}: {self.named(other)} "
                f"{'has' if len(other) == 1 else 'have'} other atoms than the structures; labels "
                "must be in the order of the structures and their atoms"
            )


def existing(path: str, where: str) -> Path:
    """The file at ``path``; DataError if there is none."""
    if not Path(path).is_file():
        what = "is a directory" if Path(path).is_dir() else "does not exist"
        raise DataError(f"{where}: the file '{path}' {what} (working directory: {Path.cwd()})")
    return Path(path)


def strain_derivative(matrix: np.ndarray, kind: GradientKind, cells: np.ndarray) -> np.ndarray:
    """dE/d(strain) ``[..., 3, 3]`` from stress (positive under tension) or virial."""
    if kind == "virial":
        return -matrix
    return matrix * np.abs(np.linalg.det(cells))[..., None, None]


def listed(frames: Sequence[int]) -> str:
    """``frames 1, 3, ...`` for messages."""
    shown = ", ".join(map(str, frames[:8]))
    plural = "frame" if len(frames) == 1 else "frames"
    return f"{plural} {shown}{', ...' if len(frames) > 8 else ''}"
