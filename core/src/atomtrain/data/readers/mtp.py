"""Configurations of MLIP (moment tensor potentials), ``.cfg``: elements are numbers of types in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from atomtrain.data.readers.account import Account, Frames, Quantity
from atomtrain.data.readers.content import opened
from atomtrain.errors import DataError
from atomtrain.frame import Frame

_BEGIN, _END = "BEGIN_CFG", "END_CFG"
_VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
_LINES = ("PlusStress:", "Virial:")
"""names of volume times stress, positive under compression, in newer and older versions of MLIP"""
_QUANTITIES = {
    "energy": Quantity("Energy", "eV"),
    "forces": Quantity("fx fy fz", "eV/angstrom"),
    "virial": Quantity("PlusStress", "eV"),
}


def recognises(path: str, head: bytes) -> bool:
    """Whether the file begins with a configuration; other ``.cfg`` files are AtomEye's."""
    return head.lstrip().startswith(_BEGIN.encode())


def read(path: str, where: str) -> Frames:
    """The configurations of a file. Raises DataError with the line where it is damaged."""
    with opened(path) as file:
        lines = file.read().decode(errors="replace").splitlines()
    begun = sum(line.split() == [_BEGIN] for line in lines)
    account = Account("mtp-cfg", "atomtrain", begun, length_unit="angstrom", types=True)
    frames = Frames(account=account)
    for first, block in _blocks(lines, path, where):
        try:
            frames.append(_Configuration(block).frame())
        except _Damaged as error:
            raise DataError(
                f"{where}: '{path}' (mtp-cfg), line {first + error.line + 1}, of configuration "
                f"{len(frames)}: {error}"
            ) from None
    keys = set().union(*(frame.keys for frame in frames))
    account.quantities = {key: value for key, value in _QUANTITIES.items() if key in keys}
    return frames


class _Damaged(Exception):
    """What is wrong, as a sentence, in a ``line`` of the configuration, counted from 0."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def _blocks(lines: Sequence[str], path: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Each configuration: its first line, counted from 0, and its lines without begin and end."""
    first = -1
    for number, line in enumerate(lines):
        word = line.strip()
        if word == _BEGIN and first < 0:
            first = number
        elif word == _END and first >= 0:
            yield first + 1, list(lines[first + 1 : number])
            first = -1
        elif word in (_BEGIN, _END):
            raise DataError(
                f"{where}: '{path}' (mtp-cfg), line {number + 1}: {word} where "
                f"{_END if word == _BEGIN else _BEGIN} should come first; repair or remove the configuration"
            )
    if first >= 0:
        raise DataError(
            f"{where}: '{path}' (mtp-cfg) is cut off: the configuration that begins on line {first + 1} "
            f"has no {_END}; copy the file again, or remove that configuration"
        )


class _Configuration:
    """What is between BEGIN_CFG and END_CFG, read line by line."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._next = 0
        self._size = -1
        self._cell: list[list[float]] = []
        self._atoms: dict[str, np.ndarray] = {}
        self._values: dict[str, object] = {}
        while self._next < len(lines):
            self._read_part()

    def frame(self) -> Frame:
        cell = np.zeros((3, 3))
        cell[: len(self._cell)] = np.array(self._cell).reshape(-1, 3)
        if "type" not in self._atoms:
            raise _Damaged(0, "it has no AtomData with a column 'type'")
        positions = self._columns("cartes_x", "cartes_y", "cartes_z")
        if positions is None:
            fractions = self._columns("direct_x", "direct_y", "direct_z")
            if fractions is None:
                raise _Damaged(0, "AtomData has no columns cartes_x, cartes_y, cartes_z")
            positions = fractions @ cell
        forces = self._columns("fx", "fy", "fz")
        return Frame(
            self._atoms["type"].astype(np.int64),
            positions,
            cell,
            np.arange(3) < len(self._cell),
            self._values,
            {} if forces is None else {"forces": forces},
        )

    def _read_part(self) -> None:
        words = self._lines[self._next].split()
        self._next += 1
        if not words:
            return
        name = words[0].lower()
        if name == "size":
            self._size = int(self._numbers(1)[0])
        elif name == "supercell":
            while self._next < len(self._lines) and self._is_numbers(3):
                self._cell.append(self._numbers(3))
        elif name == "atomdata:":
            self._read_atoms(words[1:])
        elif name == "energy":
            self._values["energy"] = self._numbers(1)[0]
        elif words[0] in _LINES:
            given = dict(zip(words[1:], self._numbers(6), strict=False))
            if set(given) != set(_VOIGT):
                raise _Damaged(self._next - 2, f"{words[0]} should name {' '.join(_VOIGT)}")
            self._values["virial"] = np.array([given[name] for name in _VOIGT])
        elif words[0] == "Stress:":
            raise _Damaged(
                self._next - 1,
                "'Stress:' is of an early version of MLIP, which changed its sign since; convert the file "
                "with 'mlp convert-cfg'",
            )
        elif name == "feature" and len(words) > 1:
            self._values[words[1]] = " ".join(words[2:])
        else:
            raise _Damaged(
                self._next - 1, f"'{' '.join(words)[:40]}' is not known in a configuration"
            )

    def _read_atoms(self, columns: Sequence[str]) -> None:
        if self._size < 0:
            raise _Damaged(self._next - 1, "AtomData comes before Size")
        rows = []
        for atom in range(self._size):
            if not self._is_numbers(len(columns)):
                raise _Damaged(
                    self._next,
                    f"there should be atom {atom + 1} of {self._size}, with the {len(columns)} numbers "
                    f"that AtomData names ({' '.join(columns)})",
                )
            rows.append(self._numbers(len(columns)))
        table = np.array(rows).reshape(-1, len(columns))
        if "id" in columns:  # MLIP writes atoms of several processes as they come
            table = table[table[:, columns.index("id")].argsort(kind="stable")]
        self._atoms = dict(zip(columns, table.T, strict=True))

    def _columns(self, *names: str) -> np.ndarray | None:
        if not all(name in self._atoms for name in names):
            return None
        return np.stack([self._atoms[name] for name in names], axis=1)

    def _is_numbers(self, count: int) -> bool:
        try:
            self._numbers(count)
        except _Damaged:
            return False
        self._next -= 1
        return True

    def _numbers(self, count: int) -> list[float]:
        """The numbers of the next line."""
        words = self._lines[self._next].split() if self._next < len(self._lines) else []
        try:
            found = [float(word) for word in words]
        except ValueError:
            found = []
        if len(found) != count:
            raise _Damaged(
                self._next, f"there should be {count} numbers, not '{' '.join(words)[:40]}'"
            )
        self._next += 1
        return found
