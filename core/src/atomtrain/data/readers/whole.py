"""Whether all of a file was read: ASE's readers stop early without a word.

Extended xyz is walked along its numbers of atoms before ASE reads it. Of other formats the beginnings
of frames are counted afterwards; the next such format is one line in ``_BEGINNINGS``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO

from atomtrain.data.readers.comments import Comments, wrong_matrix
from atomtrain.data.readers.content import BYTE_ORDER_MARK

_TEXT = re.MULTILINE
_BEGINNINGS: dict[str, re.Pattern[bytes]] = {
    "cif": re.compile(rb"^\s*_cell_length_a\b", _TEXT),
    "lammps-dump-text": re.compile(rb"^ITEM: NUMBER OF ATOMS[^\n]*\n\s*(\d+)", _TEXT),
    "proteindatabank": re.compile(rb"^MODEL\b", _TEXT),
    "sdf": re.compile(rb"^\$\$\$\$", _TEXT),
    # numbers of atoms, perhaps 'Selective dynamics', and the kind of coordinates
    "vasp": re.compile(rb"^[ \t]*\d[\d \t]*\n(?:[ \t]*[Ss].*\n)?[ \t]*[DdCcKk]", _TEXT),
    "vasp-xdatcar": re.compile(rb"^Direct configuration=", _TEXT),
}
"""What each frame has once, by ASE's name of the format; a group is the number of atoms.

Outputs of codes are not here: that the last step of a run that was stopped is left out is right.
"""
_ONLY_ONCE = {"traj": re.compile(rb"- of UlmASE-Trajectory")}
"""what a whole file has once; a second one was appended, and is not read"""
COUNTED = {*_BEGINNINGS, *_ONLY_ONCE}
"""formats of which :func:`check_all_read` knows something"""


_FORTRAN = (b"D+", b"D-", b"D0", b"d+", b"d-", b"d0")
_EXPONENT = re.compile(rb"(?<![\w.])([-+]?(?:\d+\.\d*|\.\d+))[Dd]([-+]?\d+)(?![\w.])")
"""a number as Fortran writes it"""


class Incomplete(Exception):
    """What is the matter with a file and what to do, as the rest of ``'file' ...``."""


def xyz_pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    """The text of extended xyz in pieces of about ``size`` bytes, cut between frames.

    Where numbers of atoms do not lead from frame to frame the rest is one piece: :class:`XyzText` says why.
    """
    piece: list[bytes] = []
    length = 0
    while line := file.readline():
        count = _count(line) if line.strip() and not line.lstrip().startswith(b"VEC") else None
        if count is not None and count >= 0 and length > size:
            yield b"".join(piece)
            piece, length = [], 0
        rest = [] if count is None else list(islice(file, count + 1)) if count >= 0 else [*file]
        piece += [line, *rest]
        length += len(line) + sum(map(len, rest))
    if piece:
        yield b"".join(piece)


class XyzText:
    """Extended xyz as it is to be given to ASE, with the line (counted from 1) of each frame.

    ``content`` has no blank lines between frames, at which ASE would stop, comment lines as ASE reads them
    (``comments`` says what was changed) and exponents with E. Raises :class:`Incomplete` where the frames do
    not follow one another as their numbers of atoms say, or a column Z contradicts the symbols.
    """

    def __init__(self, content: bytes) -> None:
        self.comments = Comments()
        self.types = False
        content = content.replace(BYTE_ORDER_MARK, b"")  # of files that were put together
        if any(mark in content for mark in _FORTRAN):
            content = _EXPONENT.sub(rb"\1E\2", content)
        if b"\r" in content:
            content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self.lines: list[int] = []
        self._original = content
        file = io.BytesIO(content)
        kept: list[bytes] = []
        copied, number = 0, 0
        while line := file.readline():
            number += 1
            if not line.strip():
                kept.append(content[copied : file.tell() - len(line)])
                copied = file.tell()
                continue
            if self.lines and line.lstrip().startswith(b"VEC"):  # of the frame before
                continue
            count = _count(line)
            if count < 0:
                raise self._no_number(number, line, content.count(b"\n", file.tell()))
            self.lines.append(number)
            start = file.tell()
            rest = list(islice(file, count + 1))
            if len(rest) <= count:
                raise Incomplete(
                    f"ends in frame {len(self.lines) - 1}, which begins on line {number}: "
                    f"{max(len(rest) - 1, 0)} of its {count} atoms are there; {_whole(self.lines)}. "
                    "Copy the file again, or remove that frame"
                )
            comment = self.comments.rewritten(rest[0])
            if comment is not rest[0]:
                kept += [content[copied:start], comment]
                copied = start + len(rest[0])
            if b"species:" in comment and b":Z:" in comment:
                _check_numbers(comment, rest[1:], number + 2)
            if not all(map(bytes.strip, rest[1:])):
                blank = next(k for k, atom in enumerate(rest) if k and not atom.strip())
                raise Incomplete(
                    f"has a blank line, {number + 1 + blank}, among the atoms of frame "
                    f"{len(self.lines) - 1}, which begins on line {number} and says it has {count}; "
                    "remove the blank line or correct the number of atoms"
                )
            number += len(rest)
        if self.lines and not content.endswith(b"\n"):
            _check_last_line(rest[1:], number)
        self.content = b"".join([*kept, content[copied:]]) if kept else content

    def plain_species(self) -> bool:
        """Make symbols of species like ``Cu1`` and ``56``; whether there were any.

        ``types``: the numbers are 1, 2, ..., so that they may be types as well.
        """
        lines = self.content.splitlines(keepends=True)
        places: list[tuple[int, int, bytes]] = []
        k = 0
        while k < len(lines):
            if lines[k].startswith(b"VEC"):
                k += 1
                continue
            count = int(lines[k])
            column = next(
                (c for c, (n, _) in enumerate(_columns(lines[k + 1])) if n == "species"), -1
            )
            for row in range(k + 2, k + 2 + count) if column >= 0 else ():
                words = lines[row].split()
                if len(words) > column and not _is_symbol(words[column]):
                    places.append((row, column, words[column]))
            k += count + 2
        found = {word for *_, word in places}
        symbols = {word: _plain_symbol(word) for word in found}
        if not places or not all(symbols.values()):
            return False
        numbers = {int(word) for word in found if word.isdigit()}
        self.types = bool(numbers) and numbers == set(range(1, len(numbers) + 1))
        for row, column, word in places:
            parts = lines[row].split()
            parts[column] = symbols[word]
            lines[row] = b" ".join(parts) + b"\n"
        self.content = b"".join(lines)
        shown = ", ".join(f"{w.decode()} is {symbols[w].decode()}" for w in sorted(found)[:6])
        self.comments.notes.append(f"species are read as elements: {shown}")
        return True

    def why_not(self, frame: int) -> str:
        """Why ASE cannot read a frame, with the line, and what to do; empty where that is not plain."""
        first = self.lines[frame]
        lines = self._original.splitlines()[first - 1 :]
        count = _count(lines[0])
        if matrix := wrong_matrix(lines[1]):
            return f"line {first + 1} (of frame {frame}): {matrix}; correct or remove it"
        columns = _columns(lines[1])
        species = next((k for k, (name, _) in enumerate(columns) if name == "species"), -1)
        for number, line in enumerate(lines[2 : count + 2], first + 2):
            words = line.split()
            here = f"line {number} (of frame {frame}, which begins on line {first})"
            if len(words) == 1 and words[0].isdigit():
                return (
                    f"{here} looks like the beginning of another frame, but that one says it has "
                    f"{count} atoms; correct the number on line {first}"
                )
            if len(words) < len(columns):
                return (
                    f"{here} has {len(words)} columns, but there should be {len(columns)}; complete "
                    "the line, or remove the frame"
                )
            if species >= 0 and not _is_symbol(words[species]):
                return (
                    f"{here}: '{words[species].decode(errors='replace')}' is not a chemical symbol; "
                    "write symbols (H, He, ...), or atomic numbers in a column Z "
                    "(Properties=Z:I:1:pos:R:3...)"
                )
            for (name, kind), word in zip(columns, words, strict=False):
                if kind in "RI" and not _is_number(word, kind):
                    what = "a number" if kind == "R" else "a whole number"
                    return (
                        f"{here}: '{word.decode(errors='replace')}' of '{name}' is not {what}; "
                        "repair the line"
                    )
        return ""

    def _no_number(self, number: int, line: bytes, left: int) -> Incomplete:
        """There should be the beginning of a frame on this line."""
        text = line.strip()[:40].decode(errors="replace")
        text = text if text.isprintable() else ascii(text)[1:41]
        if line.lstrip().startswith(b"ATOMIC FORCES"):
            return Incomplete(
                "holds forces of CP2K alone, without structures; install atomtrain-dpdata and read the output "
                "beside it (reader: dpdata)"
            )
        if not self.lines:
            return Incomplete(
                f"does not look like (extended) xyz: line {number} should be a number of atoms, but "
                f"is '{text}'; give the file the extension of its format"
            )
        before, first = len(self.lines) - 1, self.lines[-1]
        lines = self._original.splitlines()[first - 1 : number - 1]
        said = _count(lines[0])
        message = (
            f"has no frame where one should begin: line {number} should be a number of atoms, but is "
            f"'{text}'; {left} further lines follow it. Frame {before}, which begins on line "
            f"{first}, says it has {said} atoms"
        )
        early = [k for k, one in enumerate(lines) if k > 1 and one.strip().isdigit()]
        if early:
            message += f", but the next one seems to begin on line {first + early[0]}"
        return Incomplete(
            f"{message}; correct that number, or remove what does not belong to the file"
        )


def check_all_read(format: str, content: bytes, n_atoms: Sequence[int]) -> None:
    """Compare what was read, frames of ``n_atoms``, with the text; raise :class:`Incomplete`."""
    if format in _ONLY_ONCE and len(_ONLY_ONCE[format].findall(content)) > 1:
        raise Incomplete(
            f"is several files one after the other, of which only the first ({len(n_atoms)} frames) "
            "can be read; give them as a list of files"
        )
    if format not in _BEGINNINGS:
        return
    begun = list(_BEGINNINGS[format].finditer(content))
    if len(begun) > len(n_atoms):
        line = content.count(b"\n", 0, begun[len(n_atoms)].start()) + 1
        raise Incomplete(
            f"was not read whole: it has {len(begun)} frames, of which {len(n_atoms)} were read; number "
            f"{len(n_atoms)}, counted from 0, is on line {line} of {content.count(bytes([10]))}. Look "
            "for what is cut off or damaged before or there"
        )
    if not _BEGINNINGS[format].groups:
        return
    for k, (match, found) in enumerate(zip(begun, n_atoms, strict=False)):
        if int(match[1]) != found:
            line = content.count(b"\n", 0, match.start()) + 1
            raise Incomplete(
                f"was not read whole: frame {k} (line {line}) says it has {int(match[1])} atoms, but "
                f"{found} were read; complete or remove it"
            )


def _count(line: bytes) -> int:
    """The number of atoms that a line is; -1: it is none."""
    try:
        return max(int(line), -1)
    except ValueError:
        return -1


def _whole(lines: Sequence[int]) -> str:
    before = len(lines) - 1
    return "no frame before it" if not before else f"the {before} before it are whole"


def _check_last_line(atoms: list[bytes], number: int) -> None:
    """A last line without an end that is shorter than all others, which are of one length."""
    widths = {len(line.rstrip(b"\n")) for line in atoms[:-1]}
    if len(atoms) > 3 and len(widths) == 1 and len(atoms[-1]) < min(widths):
        raise Incomplete(
            f"seems to be cut off in its last line, {number}: that is shorter than the others and has "
            "no end; copy the file again (if it is whole, end it with a new line)"
        )


def _columns(comment: bytes) -> list[tuple[str, str]]:
    """The name and type (R, I, S, L) of each column that a comment line promises."""
    found = re.search(rb"Properties\s*=\s*[\"']?([^\s\"']+)", comment)
    words = (found[1] if found else b"species:S:1:pos:R:3").decode(errors="replace").split(":")
    columns: list[tuple[str, str]] = []
    for name, kind, width in zip(words[::3], words[1::3], words[2::3], strict=False):
        columns += [(name, kind)] * (int(width) if width.isdigit() else 1)
    return columns


def _is_symbol(word: bytes) -> bool:
    from ase.data import atomic_numbers

    return word.decode(errors="replace").capitalize() in atomic_numbers


def _plain_symbol(word: bytes) -> bytes:
    """The symbol that ``Cu1``, ``O_w``, ``Fe3+`` or ``56`` stand for, or nothing."""
    from ase.data import chemical_symbols

    if word.isdigit():
        number = int(word)
        return chemical_symbols[number].encode() if 0 < number < len(chemical_symbols) else b""
    found = re.fullmatch(rb"([A-Z][a-z]?)(?:\d+|_\w+|\d*[+-]+\d*)", word)
    return found[1] if found is not None and _is_symbol(found[1]) else b""


def _check_numbers(comment: bytes, atoms: Sequence[bytes], first: int) -> None:
    """A column of atomic numbers must say what the symbols say; ASE would take the numbers."""
    from ase.data import atomic_numbers

    names = [name for name, _ in _columns(comment)]
    if "species" not in names or "Z" not in names:
        return
    symbol, number = names.index("species"), names.index("Z")
    for line, atom in enumerate(atoms, first):
        words = atom.split()
        if len(words) < len(names):
            return
        known = atomic_numbers.get(words[symbol].decode(errors="replace").capitalize())
        if known is not None and str(known) != words[number].decode(errors="replace").lstrip("0"):
            raise Incomplete(
                f"contradicts itself on line {line}: species is {words[symbol].decode()}, but Z is "
                f"{words[number].decode(errors='replace')}; remove the column that is wrong"
            )


def _is_number(word: bytes, kind: str) -> bool:
    try:
        float(word) if kind == "R" else int(word)
    except ValueError:
        return False
    return True
