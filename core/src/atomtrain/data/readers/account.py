"""What the options ask of a file, and what its reader says of how it was read.

A reader gives its frames as :class:`Frames`, with an :class:`Account`: the format, the quantities in
the terms of the code that wrote the file, what was corrected. :func:`described` makes one line of it
for the log, with what the frames themselves show. A reader that gives a plain list of frames has
nothing to say but its name. A reader of large files gives :class:`LazyFrames`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, overload

import numpy as np

from atomtrain.frame import Frame
from atomtrain.sections.names import symbols

Unconverged = Literal["refuse", "drop", "keep"]


@dataclass(frozen=True)
class Reading:
    """How the options want a file to be read.

    ``format`` by a reader's own name for it (empty: guessed); ``types``: atomic numbers of the types
    that stand for elements, as pairs; ``unconverged``: what to do with steps that did not converge.
    """

    format: str = ""
    types: tuple[tuple[int, int], ...] = ()
    unconverged: Unconverged = "refuse"


@dataclass(frozen=True)
class Quantity:
    """One quantity of the frames: what the code calls it, its unit, what was done to it.

    ``name``: in the file (``e_fr_energy``), empty where it is that of the key. ``unit``: of the values
    in the frames, empty where the file does not say; ``note``: what was converted or assumed;
    ``compression``: a stress that is positive under compression, other than ASE's.
    """

    name: str = ""
    unit: str = ""
    note: str = ""
    compression: bool = False


@dataclass
class Account:
    """How a file was read.

    ``format``: its name for ``format:`` in the options; ``reader``: who read it (``ASE 3.29.0``).
    ``announced``: the number of frames that the file itself begins or announces (None: unknown).
    ``quantities``: by key of the frames; keys that are not named are those of the file.
    ``length_unit``: of positions and cells (empty: the format has no units, so that the options say;
    the energy's unit is that of its quantity); ``usual_units``: what they usually are then, where that is
    not what options have by default. ``types``: the atomic numbers are numbers of types,
    and the options must say which elements they are. ``unconverged``: frames whose electrons did not
    converge. ``notes``: remarks of the reader and remedies that were applied, for the log.
    ``warnings``: those that may be mistakes.
    """

    format: str = ""
    reader: str = ""
    announced: int | None = None
    quantities: dict[str, Quantity] = field(default_factory=dict)
    length_unit: str = ""
    usual_units: str = ""
    types: bool = False
    unconverged: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Frames(list[Frame]):
    """The frames of a file, with the :class:`Account` of how they were read."""

    def __init__(self, frames: Iterable[Frame] = (), account: Account | None = None) -> None:
        super().__init__(frames)
        self.account = account or Account()


class LazyFrames(Sequence[Frame]):
    """Frames that are read when they are asked for, each time anew, with the :class:`Account` of them.

    ``read(k)`` gives frame ``k`` of the file and raises DataError; ``numbers`` are those of the frames
    that are meant. A slice reads nothing. Another process may have them if it inherits ``read``, or
    ``read`` can be pickled.
    """

    def __init__(
        self, read: Callable[[int], Frame], numbers: range, account: Account | None = None
    ) -> None:
        self._read = read
        self._numbers = numbers
        self.account = account or Account()

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> LazyFrames: ...

    def __getitem__(self, index: int | slice) -> Frame | LazyFrames:
        if isinstance(index, slice):
            return LazyFrames(self._read, self._numbers[index], self.account)
        return self._read(self._numbers[index])


def described(path: str, frames: Sequence[Frame], account: Account) -> str:
    """One line for the log: what was taken from a file, and as what."""
    count = f"{len(frames)} structure{'s' if len(frames) != 1 else ''}"
    if account.announced is not None and account.announced != len(frames):
        count += f" (of {account.announced} that begin in the file)"
    by = f" ({account.reader})" if account.reader else ""
    parts = [f"{account.format or 'frames'}{by}", count]
    if frames:
        parts += [_elements(frames), _cells(frames, account.length_unit), _labels(frames, account)]
        fixed = sum(int(frame.fixed.any(1).sum()) for frame in frames if frame.fixed is not None)
        if fixed:
            parts.append(f"{fixed} of {sum(len(f.numbers) for f in frames)} atoms are fixed")
    return f"read '{path}': " + "; ".join(part for part in parts if part)


def _elements(frames: Sequence[Frame]) -> str:
    return symbols(np.unique(np.concatenate([frame.numbers for frame in frames])).tolist(), " ")


def _cells(frames: Sequence[Frame], unit: str) -> str:
    """Periodicity, and the range of lengths of periodic cell vectors."""
    pbc = np.stack([frame.pbc for frame in frames])
    directions, counts = np.unique(pbc.sum(1), return_counts=True)
    names = {0: "not periodic", 1: "periodic in 1 direction", 2: "in 2 directions", 3: "periodic"}
    many = len(directions) > 1
    said = ", ".join(
        names[int(n)].replace("in 2", "periodic in 2") + (f" ({count})" if many else "")
        for n, count in zip(directions, counts, strict=True)
    )
    if not pbc.any():
        return said
    lengths = np.linalg.norm(np.stack([frame.cell for frame in frames]), axis=2)[pbc]
    return f"{said}, cell vectors of {_range(lengths)}{f' {unit}' if unit else ''}"


def _labels(frames: Sequence[Frame], account: Account) -> str:
    """The quantities that are numbers, with the largest entry of forces and stress."""
    keys: dict[str, int] = {}
    for frame in frames:
        for key in (*frame.per_structure, *frame.per_atom):
            keys[key] = keys.get(key, 0) + 1
    keys = {key: n for key, n in keys.items() if isinstance(key, str) and key.isidentifier()}
    said = []
    for key in sorted(keys, key=lambda key: (_rank(key), key)):
        known = account.quantities.get(key)
        if known is None and _rank(key) == len(_FIRST):
            continue
        known = known or Quantity()
        told = [known.name if known.name != key else "", known.unit, known.note]
        if keys[key] < len(frames):
            told.append(f"in {keys[key]}")
        if key in ("forces", "force", "stress", "virial"):
            told.append(_largest(frames, key))
        inner = ", ".join(part for part in told if part)
        said.append(f"{key} ({inner})" if inner else key)
    others = sorted(
        key for key in keys if _rank(key) == len(_FIRST) and key not in account.quantities
    )
    text = ", ".join(said) or "no energy, forces or stress"
    if others:
        text += f"; also {', '.join(others[:8])}{', ...' if len(others) > 8 else ''}"
    return text


_FIRST = ("energy", "free_energy", "forces", "force", "stress", "virial")


def _rank(key: str) -> int:
    return _FIRST.index(key) if key in _FIRST else len(_FIRST)


def _largest(frames: Sequence[Frame], key: str) -> str:
    arrays = [np.asarray(value) for frame in frames if (value := frame.find(key)) is not None]
    arrays = [array.ravel() for array in arrays if array.dtype.kind in "iuf" and array.size]
    if not arrays:
        return ""
    values = np.concatenate(arrays)
    finite = values[np.isfinite(values)]
    return f"up to {np.abs(finite).max():.4g}" if len(finite) else ""


def _range(values: np.ndarray) -> str:
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"
