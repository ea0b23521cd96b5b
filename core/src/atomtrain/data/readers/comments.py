"""Comment lines of xyz files as other programs write them, rewritten as ASE reads them.

A line that ASE reads rightly stays as it is, byte for byte. What is rewritten is told in ``notes``.
"""

from __future__ import annotations

import re

from atomtrain.data.readers.account import Quantity
from atomtrain.data.readers.units import HARTREE

_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][-+]?\d+)?"
_KEYS = re.compile(
    rb"(?<![\w-])(lattice|properties|pbc|cell|virial|stress)(\s*=\s*)([\"'{\[]?)", re.IGNORECASE
)
_CANONICAL = {b"lattice": b"Lattice", b"properties": b"Properties", b"pbc": b"pbc"}
_COLUMNS = re.compile(rb"\b(species|pos)(?=:)", re.IGNORECASE)
_CLOSING = {b'"': b'"', b"'": b"'", b"{": b"}", b"[": b"]"}
_SIX = (0, 5, 4, 5, 1, 3, 4, 3, 2)
"""entries of a matrix in ASE's order of six numbers"""
_STYLES: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("xTB", re.compile(rb"^\s*energy:\s*(" + _NUMBER + rb")\s+gnorm:")),
    ("ORCA", re.compile(rb"^\s*Coordinates from ORCA-job\b.*\bE\s+(" + _NUMBER + rb")\s*$")),
    (
        "CP2K",
        re.compile(rb"^\s*i\s*=\s*\d+,(?:\s*time\s*=\s*\S+,)?\s*E\s*=\s*(" + _NUMBER + rb")\s*$"),
    ),
)
"""programs that write an energy in hartree in words; the group is the number"""


class Comments:
    """Rewrites the comment lines of one file."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.quantities: dict[str, Quantity] = {}

    def rewritten(self, line: bytes) -> bytes:
        """The line as ASE is to read it; the same object where nothing is to be changed."""
        if b"=" not in line or line.lstrip().startswith((b"i =", b"i=")):
            return self._in_words(line)
        if all(match[1] in _AS_THEY_ARE for match in _KEYS.finditer(line)):
            return line
        return self._keys(line)

    def _in_words(self, line: bytes) -> bytes:
        for program, pattern in _STYLES:
            found = pattern.match(line)
            if found is not None:
                energy = float(found[1].replace(b"D", b"E").replace(b"d", b"e")) * HARTREE
                self.quantities["energy"] = Quantity(
                    f"as {program} writes it", "eV", "from hartree"
                )
                return b"energy=%r\n" % energy
        return line

    def _keys(self, line: bytes) -> bytes:
        made, end = [], 0
        names = {match[1] for match in _KEYS.finditer(line)}
        for match in _KEYS.finditer(line):
            if match.start() < end:
                continue
            name = match[1].lower()
            value, stop = _value(line, match)
            made.append(line[end : match.start()])
            text = line[match.start() : stop]
            canonical = _CANONICAL.get(name)
            numbers = value.split()
            if canonical is not None and match[1] != canonical and canonical not in names:
                self._note(f"{match[1].decode()}= is taken for {canonical.decode()}=")
                text = canonical + line[match.end(1) : stop]
                if name == b"properties":
                    text = _COLUMNS.sub(lambda found: found[0].lower(), text)
            elif name == b"cell" and b"lattice" not in line.lower() and len(numbers) == 9:
                self._note(f"{match[1].decode()}= is taken for Lattice=")
                text = b'Lattice="' + b" ".join(numbers) + b'"'
            elif match[1] in (b"virial", b"stress") and len(numbers) == 6:
                self._note(f"six numbers of {match[1].decode()} are read as xx yy zz yz xz xy")
                text = match[1] + b'="' + b" ".join(numbers[k] for k in _SIX) + b'"'
            made.append(text)
            end = stop
        changed = b"".join([*made, line[end:]])
        return line if changed == line else changed

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def wrong_matrix(line: bytes) -> str:
    """Which matrix of a comment line has another number of entries than it should; empty: none."""
    for match in _KEYS.finditer(line):
        name, count = match[1].decode(), len(_value(line, match)[0].split())
        if name in ("virial", "stress") and count not in (6, 9):
            return f"'{name}' has {count} numbers, but should have 9, or 6 (xx yy zz yz xz xy)"
        if name == "Lattice" and count != 9:
            return f"'{name}' has {count} numbers, but should have 9 (three vectors)"
    return ""


_AS_THEY_ARE = {b"Lattice", b"Properties", b"pbc"}


def _value(line: bytes, match: re.Match[bytes]) -> tuple[bytes, int]:
    """What stands after ``key=``, without quotes, and where it ends."""
    opening = match[3]
    if opening:
        close = line.find(_CLOSING[opening], match.end())
        if close >= 0:
            return line[match.end() : close], close + 1
        return line[match.end() :].rstrip(), len(line.rstrip())
    word = re.compile(rb"\S*").match(line, match.end())
    assert word is not None
    return word[0], word.end()
