"""Files that are read frame by frame: anything ASE reads, and what readers of packages give."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from atomtrain.data.readers.account import Account, Quantity
from atomtrain.data.readers.base import (
    DataFile,
    GradientKind,
    Rows,
    Wanted,
    strain_derivative,
)
from atomtrain.errors import DataError
from atomtrain.frame import Frame
from atomtrain.targets import TargetInfo

VOIGT = ((0, 5, 4), (5, 1, 3), (4, 3, 2))
"""index of each entry of a symmetric 3x3 matrix in ASE's order xx, yy, zz, yz, xz, xy"""
_LOOKS_LIKE: dict[GradientKind, re.Pattern[str]] = {
    "forces": re.compile("force|grad"),
    "stress": re.compile("stress|virial"),
    "virial": re.compile("virial|stress"),
}


def keys_of(frames: Iterable[Frame]) -> set[str]:
    """Names of all values of some frames."""
    found: set[str] = set()
    for frame in frames:
        found.update(frame.per_structure)
        found.update(frame.per_atom)
    return {str(key) for key in found}


class FramesFile(DataFile):
    """A list of frames; tensors are given flat or in shape, components before properties."""

    @cached_property
    def keys(self) -> set[str]:  # type: ignore[override]
        return keys_of(self.frames)

    def flag(self, key: str) -> bool:
        values = [frame.find(key) for frame in self.frames]
        return all(value is True for value in values if value is not None)

    def stated_unit(self, key: str) -> str:
        known = self.account.quantities.get(key) if self.account is not None else None
        if known is not None and known.unit:
            return known.unit
        words = [
            f"{name}{join}{unit}"
            for name in (key, key.removesuffix("s"))
            for join in "-_"
            for unit in ("unit", "units")
        ]
        keys = self.keys
        said = {
            str(frame.find(word))
            for word in words
            if word in keys
            for frame in self.frames
            if frame.find(word) is not None
        }
        if len(said) > 1:
            raise ValueError(f"frames say different units of '{key}': {', '.join(sorted(said))}")
        return said.pop() if said else ""

    def compression(self, key: str) -> bool:
        known = self.account.quantities.get(key) if self.account is not None else None
        return known is not None and known.compression

    def length_units(self) -> dict[str, str]:
        unit = self.account.length_unit if self.account is not None else ""
        return {self.path: unit} if unit else {}

    def target(self, key: str, info: TargetInfo, wanted: Wanted) -> Rows:
        def convert(value: Any, structure: Frame) -> np.ndarray:
            if info.per_volume:  # a stress: ASE's six numbers are understood too
                return symmetric(value).reshape(1, 9)
            rows = len(structure.numbers) if info.per_atom else 1
            return _shaped(value, rows, info.width, wanted.flags)

        return self._rows(key, info.per_atom, info.width, convert, wanted)

    def raw(self, key: str, info: TargetInfo, wanted: Wanted) -> list[Any]:
        return [self.frames[k].find(key) for k in wanted.chosen]

    def gradient(self, key: str, kind: GradientKind, energy: str, wanted: Wanted) -> Rows:
        def forces(value: Any, structure: Frame) -> np.ndarray:
            return _shaped(value, len(structure.numbers), 3)

        def strain(value: Any, structure: Frame) -> np.ndarray:
            return strain_derivative(symmetric(value), kind, structure.cell).reshape(1, 9)

        if kind == "forces":
            return self._rows(key, True, 3, forces, wanted)
        return self._rows(key, False, 9, strain, wanted)

    def resembling(self, kind: GradientKind) -> list[str]:
        columns = {"fx", "fy", "fz"}
        found = []
        for key in sorted(self.keys, key=lambda key: (len(key), key)):
            if not _LOOKS_LIKE[kind].search(key.lower()):
                continue
            frame = next((frame for frame in self.frames if frame.find(key) is not None), None)
            if frame is None:
                continue
            fits = ((len(frame.numbers), 3),) if kind == "forces" else ((3, 3), (9,), (6,))
            if getattr(frame.find(key), "shape", ()) in fits:
                found.append(key)
        if kind == "forces" and columns <= self.keys:
            found.append(", ".join(sorted(columns)))
        return found

    def _rows(
        self,
        key: str,
        per_atom: bool,
        width: int,
        convert: Callable[[Any, Frame], np.ndarray],
        wanted: Wanted,
    ) -> Rows:
        rows = Rows.absent(wanted, per_atom, width, f"'{key}'")
        for k, part in wanted.parts(per_atom):
            value = self.frames[k].find(key)
            if value is None:
                continue
            try:
                rows.put(part, convert(value, wanted.structures[k]))
            except (ValueError, TypeError) as error:
                file, frame = self.origin(k)
                raise DataError(
                    f"{wanted.where}: '{key}' of frame {frame} in '{self.files[file]}' does not fit: "
                    f"{error}"
                ) from None
        return rows


class JoinedFiles(FramesFile):
    """Several files, their frames one after the other; ``path`` is what the options call them."""

    def __init__(self, path: str, parts: Sequence[FramesFile]) -> None:
        super().__init__(path, [frame for part in parts for frame in part.frames])
        self._parts = parts
        self._files = [part.path for part in parts]
        self.account = Account()
        for part in parts:
            self.account.usual_units = (
                self.account.usual_units or (part.account or Account()).usual_units
            )
            for key, known in (part.account or Account()).quantities.items():
                same = self.account.quantities.setdefault(key, known) == known
                self.account.quantities[key] = known if same else Quantity(unit=known.unit)
        self._starts = np.cumsum([0] + [len(part.frames) for part in parts])[:-1].tolist()

    @property
    def files(self) -> list[str]:
        return self._files

    def stated_unit(self, key: str) -> str:
        said = {part.stated_unit(key) for part in self._parts} - {""}
        if len(said) > 1:
            raise ValueError(f"its files say different units of '{key}': {', '.join(sorted(said))}")
        return said.pop() if said else ""

    def length_units(self) -> dict[str, str]:
        return {path: unit for part in self._parts for path, unit in part.length_units().items()}

    def origin(self, frame: int) -> tuple[int, int]:
        file = bisect_right(self._starts, frame) - 1
        return file, frame - self._starts[file]


def _numbers(value: Any, flags: bool = False) -> np.ndarray:
    """As float64; ``flags``: True and False count as 1 and 0. ValueError for what is no number.

    ``float`` would make 1 of True, which is what ASE makes of a word alone in a comment line, and
    a number of a date.
    """
    array = np.asarray(value)
    if array.dtype.kind == "b" and not flags:
        raise ValueError(
            f"it is {array.ravel()[0] if array.size else array}, not a number (a word without a value in "
            "the comment line of a frame is read as True); yes and no are for type: binary"
        )
    if array.dtype.kind not in "iufb":
        text = str(value).splitlines()[0] if str(value) else "empty"
        raise ValueError(f"it is '{text[:40]}' ({type(value).__name__}), not a number")
    return array.astype(np.float64)


def _shaped(value: Any, rows: int, width: int, flags: bool = False) -> np.ndarray:
    array = _numbers(value, flags)
    if array.size != rows * width or (rows > 1 and array.shape[0] != rows):
        per = f"{rows} atoms x {width}" if rows > 1 or width > 1 else "a single number"
        raise ValueError(f"it has shape {array.shape}, expected {per}")
    return array.reshape(rows, width)


def symmetric(value: Any) -> np.ndarray:
    """A stress or virial as a 3x3 matrix, from 3x3, 9 or (ASE's order) 6 numbers."""
    array = _numbers(value)
    if array.size == 6:
        return np.take(array, VOIGT)
    if array.size == 9:
        return array.reshape(3, 3)
    raise ValueError(f"it has shape {array.shape}, expected 6 (xx, yy, zz, yz, xz, xy) or 3 x 3")
