"""VASP's OUTCAR by the few lines that every version writes, for those that ASE cannot read.

ASE wants blocks that are not there with little output (NWRITE), machine-learnt forces or many species.
"""

from __future__ import annotations

import re

import numpy as np

from atomtrain.data.readers.units import GPA
from atomtrain.frame import Frame
from atomtrain.sections.names import atomic_number

_NUMBER = rb"[-+]?\d+\.\d+(?:[EeDd][-+]?\d+)?"
_NUMBERS = re.compile(_NUMBER)
_EVENTS = re.compile(
    rb"^\s+direct lattice vectors.*\n(?P<cell>(?:.*\n){3})"
    rb"|^ POSITION\s+TOTAL-FORCE.*\n\s*-+\s*\n(?P<atoms>(?:[ \t]*[-+]?\d.*\n)+)"
    rb"|^\s+in kB\s+(?P<stress>.*)$"
    rb"|^\s+(?:ML )?free  ?energy\s+(?:ML )?TOTEN\s+=\s*(?P<free>" + _NUMBER + rb")"
    rb"|energy\(sigma->0\)\s*=\s*(?P<zero>" + _NUMBER + rb")",
    re.MULTILINE,
)


def read(text: bytes) -> list[Frame]:
    """One frame for each block of positions and forces. ValueError says what is missing."""
    numbers = _species(text)
    frames: list[Frame] = []
    cell = stress = None
    for event in _EVENTS.finditer(text):
        kind, value = event.lastgroup, event[event.lastgroup or 0]
        if kind == "cell":
            cell = np.array([_floats(line)[:3] for line in value.splitlines()])
        elif kind == "stress":
            found = _floats(value)
            stress = np.array(found) if len(found) == 6 else None
        elif kind == "atoms" and cell is not None:
            rows = np.array([_floats(line) for line in value.splitlines()])
            if rows.shape != (len(numbers), 6):
                raise ValueError(
                    f"a block of positions has not {len(numbers)} lines of six numbers"
                )
            frame = Frame(numbers, rows[:, :3].copy(), cell, np.full(3, True))
            frame.per_atom["forces"] = rows[:, 3:].copy()
            if stress is not None:  # xx yy zz xy yz zx, kbar, positive under compression
                frame.per_structure["stress"] = -0.1 * GPA * stress[[0, 1, 2, 4, 5, 3]]
            frames.append(frame)
            stress = None
        elif kind == "free" and frames:
            frames[-1].per_structure.setdefault("free_energy", float(value))
        elif kind == "zero" and frames:
            frames[-1].per_structure.setdefault("energy", float(value))
    for frame in frames:
        if "free_energy" in frame.per_structure:
            frame.per_structure.setdefault("energy", frame.per_structure["free_energy"])
    if not frames:
        raise ValueError("there is no block of positions and forces")
    return frames


def _floats(line: bytes) -> list[float]:
    """Numbers of fixed columns, which may touch each other."""
    return [float(word) for word in _NUMBERS.findall(line)]


def _species(text: bytes) -> np.ndarray:
    titles = (
        rb"VRHFIN\s*=\s*([A-Z][a-z]?)\s*:",
        rb"TITEL\s*=\s*\S+\s+([A-Z][a-z]?)",
        rb"^ POTCAR:\s+\S+\s+([A-Z][a-z]?)",
    )
    lists = [re.findall(title, text, re.MULTILINE) for title in titles]
    names = [name.decode() for name in next(filter(None, lists), [])]
    found = re.search(rb"ions per type =\s*((?:\d+\s*?)+)\n", text)
    counts = [int(word) for word in found[1].split()] if found else []
    if not counts or len(names) < len(counts):
        raise ValueError("species (VRHFIN) or numbers of ions per type are not there")
    kinds = [atomic_number(name) for name in names[: len(counts)]]
    return np.repeat(np.array(kinds, dtype=np.int64), counts)
