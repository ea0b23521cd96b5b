"""GROMACS' .gro: fixed columns, lengths in nm, names of atoms rather than elements."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from atomtrain.data.readers.account import Account, Frames
from atomtrain.data.readers.content import opened
from atomtrain.errors import DataError
from atomtrain.frame import Frame
from atomtrain.sections.names import atomic_number

_TWO_LETTERS = ("CL", "BR", "LI", "MG", "ZN", "FE", "MN", "AL", "SI", "RB", "AG", "AU", "PT", "TI")
"""elements that names of atoms begin with and that no name of an organic atom does"""
_ONE_LETTER = "HCNOFPSKIB"


def recognises(path: str, head: bytes) -> bool:
    """By the extension."""
    return re.search(r"\.gro(\.(gz|bz2|xz))?$", path.lower()) is not None


def read(path: str, where: str) -> Frames:
    """All frames of a file; elements by the names of atoms and residues.

    DataError, beginning with ``where``, names the line that is wrong.
    """
    if not Path(path).is_file():
        raise DataError(
            f"{where}: the file '{path}' does not exist (working directory: {Path.cwd()})"
        )
    with opened(path) as file:
        lines = file.read().decode("latin-1").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    frames = Frames(account=Account("gromacs", "atomtrain", length_unit="angstrom"))
    names: dict[tuple[str, str], int] = {}
    start = 0
    while start < len(lines):
        count = lines[start + 1].strip() if start + 1 < len(lines) else ""
        if not count.isdigit():
            raise DataError(
                f"{where}: '{path}' (gromacs): line {start + 2} should be a number of atoms, but is "
                f"'{count[:40]}'; a frame is a title, a number, that many atoms, and the box"
            )
        stop = start + 2 + int(count)
        if stop >= len(lines):
            raise DataError(
                f"{where}: '{path}' (gromacs) ends in frame {len(frames)}, which begins on line {start + 1} "
                f"and has {count} atoms; copy it again, or remove that frame"
            )
        try:
            frames.append(_frame(lines[start + 2 : stop], lines[stop], names, start + 3))
        except ValueError as error:
            raise DataError(f"{where}: '{path}' (gromacs): {error}") from None
        start = stop + 1
    frames.account.announced = len(frames)
    from ase.data import chemical_symbols

    shown = sorted({f"{name} is {chemical_symbols[z]}" for (_, name), z in names.items()})
    more = ", ..." if len(shown) > 12 else ""
    frames.account.notes.append(
        f"elements are told by the names of atoms: {', '.join(shown[:12])}{more}; positions are in nm in the "
        "file"
    )
    return frames


def _frame(atoms: list[str], box: str, names: dict[tuple[str, str], int], first: int) -> Frame:
    """``names`` are the elements by residue and name so far. ValueError names the line."""
    numbers, positions = [], []
    for line, text in enumerate(atoms, first):
        residue, name = text[5:10].strip(), text[10:15].strip()
        if (residue, name) not in names:
            names[residue, name] = _element(residue, name, line)
        numbers.append(names[residue, name])
        # the precision is free: columns are as wide as decimal points are apart
        points = [k for k in range(20, len(text)) if text[k] == "."]
        width = points[1] - points[0] if len(points) > 1 else 8
        try:
            positions.append([float(text[20 + k * width : 20 + (k + 1) * width]) for k in range(3)])
        except ValueError:
            raise ValueError(
                f"line {line} has no position: '{text.strip()[:60]}'; repair it"
            ) from None
    try:
        sides = [float(word) for word in box.split()]
    except ValueError:
        sides = []
    if len(sides) not in (3, 9):
        raise ValueError(
            f"line {first + len(atoms)} should be the box, 3 or 9 numbers, but is '{box.strip()[:60]}'"
        )
    cell = np.diag(sides[:3])
    if len(sides) == 9:
        cell[0, 1], cell[0, 2], cell[1, 0], cell[1, 2], cell[2, 0], cell[2, 1] = sides[3:]
    periodic = bool(cell.any())
    return Frame(
        np.array(numbers, dtype=np.int64),
        np.array(positions, dtype=np.float64).reshape(-1, 3) * 10.0,
        cell * 10.0,
        np.full(3, periodic),
    )


def _element(residue: str, name: str, line: int) -> int:
    """The element of an atom by its name, as force fields give them."""
    letters = re.sub(r"[^A-Za-z]", "", name).upper()
    ion = re.sub(r"[^A-Za-z]", "", residue).upper()
    guesses = []
    if letters == ion and len(letters) <= 2:  # ions are residues of their own
        guesses.append(letters)
    if letters[:2] in _TWO_LETTERS:
        guesses.append(letters[:2])
    if letters[:1] in tuple(_ONE_LETTER):
        guesses.append(letters[:1])
    for guess in guesses:
        try:
            return atomic_number(guess.capitalize())
        except ValueError:
            continue
    raise ValueError(
        f"line {line}: the element of atom '{name}' of residue '{residue}' is not known (a virtual site has "
        "none: remove it); name atoms by their elements"
    )
