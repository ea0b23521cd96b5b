"""What ends a run: bonds of molecules that break, atoms closer or lonelier than the data have them."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list

from atomtrain.sections.names import symbols
from atomtrain_dynamics.structures import REACH, Pairs, Seen, limited, nearest, pairs_of

BONDED, BROKEN = 1.3, 1.5
"""a bond: so many sums of covalent radii; broken: so many times as long as at the start"""
TOO_CLOSE, TOO_FAR = 0.8, 1.5
"""of the shortest distance of two elements in the data, of the farthest nearest neighbour of an element"""
NEVER_SEEN = 0.5
"""of the sum of covalent radii, where the data have no distance of two elements"""
HOLDS_HYDROGEN = (7, 8, 9)
NONMETALS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 53)


def bonds(atoms: Atoms) -> Pairs:
    """The bonds of molecules: between nonmetals, of what is finite. Crystals and metals have none here."""
    i, j, d, shift = neighbor_list("ijdS", atoms, list(BONDED * covalent_radii[atoms.numbers]))
    nonmetals = np.isin(atoms.numbers, NONMETALS)
    found = np.flatnonzero(nonmetals[i] & nonmetals[j])
    i, j, d, shift = i[found], j[found], d[found], shift[found]
    finite = _finite(len(atoms), i, j, shift)
    once = ((i < j) & finite[i]).nonzero()[0]
    return Pairs(i[once], j[once], d[once])


def _finite(n: int, i: np.ndarray, j: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Whether each atom belongs to something that does not go on in its own images, [n]."""
    finite = np.ones(n, dtype=bool)
    image: dict[int, np.ndarray] = {}
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for k, first in enumerate(i.tolist()):
        neighbours[first].append(k)
    for start in range(n):
        if start in image:
            continue
        image[start] = np.zeros(3, dtype=np.int64)
        members, queue, ends = [start], deque([start]), True
        while queue:
            atom = queue.popleft()
            for k in neighbours[atom]:
                other, where = int(j[k]), image[atom] + shift[k]
                if other not in image:
                    image[other] = where
                    members.append(other)
                    queue.append(other)
                elif (image[other] != where).any():
                    ends = False
        finite[members] = ends
    return finite


class Watch:
    """Says of a structure that began as ``start`` whether it still is what the data have.

    A hydrogen that goes from one N, O or F to another has not left: that is chemistry.
    """

    def __init__(self, start: Atoms, seen: Seen) -> None:
        numbers = start.numbers
        radii = covalent_radii[:, None] + covalent_radii[None]
        self._closest = np.where(
            np.isfinite(seen.closest), TOO_CLOSE * seen.closest, NEVER_SEEN * radii
        )
        self._shortest = seen.closest
        self._lonely = np.where(seen.alone > 0, TOO_FAR * seen.alone, np.inf)[numbers]
        if limited(start):  # beyond this nothing is looked for
            self._lonely[self._lonely >= REACH] = np.inf
        found = bonds(start)
        holds = np.isin(numbers, HOLDS_HYDROGEN)
        moves = (holds[found.i] & (numbers[found.j] == 1)) | (
            holds[found.j] & (numbers[found.i] == 1)
        )
        self._bonds = Pairs(*(part[~moves] for part in found))
        self._hydrogens = np.where(numbers[found.i] == 1, found.i, found.j)[moves]
        self._held = found.d[moves]
        self._holders = np.flatnonzero(holds)

    def problem(self, atoms: Atoms, pairs: Pairs | None = None) -> str:
        """The first thing that is not as it should be, as a sentence with its atoms; empty: nothing."""
        if not np.isfinite(atoms.positions).all():
            return "positions are not finite"
        pairs = pairs_of(atoms) if pairs is None else pairs
        return self._bond(atoms) or self._close(atoms, pairs) or self._alone(atoms, pairs)

    def _bond(self, atoms: Atoms) -> str:
        lengths = _lengths(atoms, self._bonds.i, self._bonds.j)
        for k in np.flatnonzero(~(lengths < BROKEN * self._bonds.d)):
            names = _named(atoms, self._bonds.i[k], self._bonds.j[k])
            return f"the bond {names} is {lengths[k]:.2f} A, {self._bonds.d[k]:.2f} A at the start"
        for hydrogen, held in zip(self._hydrogens, self._held, strict=True):
            near = _lengths(atoms, np.full_like(self._holders, hydrogen), self._holders)
            if not near.min() < BROKEN * held:
                return (
                    f"{_named(atoms, hydrogen)} is {near.min():.2f} A from the nearest N, O or F, "
                    f"{held:.2f} A at the start"
                )
        return ""

    def _close(self, atoms: Atoms, pairs: Pairs) -> str:
        first, second = atoms.numbers[pairs.i], atoms.numbers[pairs.j]
        both = np.minimum(first, second), np.maximum(first, second)
        for k in np.flatnonzero(~(pairs.d >= self._closest[both])):
            names, shortest = (
                _named(atoms, pairs.i[k], pairs.j[k]),
                self._shortest[both[0][k], both[1][k]],
            )
            data = f"the data's shortest is {shortest:.2f} A" if np.isfinite(shortest) else ""
            return (
                f"{names} are {pairs.d[k]:.2f} A apart, {data or 'closer than their radii allow'}"
            )
        return ""

    def _alone(self, atoms: Atoms, pairs: Pairs) -> str:
        distances = nearest(atoms, pairs)
        for k in np.flatnonzero(distances > self._lonely):
            far = self._lonely[k] / TOO_FAR
            how = f"{distances[k]:.2f} A" if np.isfinite(distances[k]) else f"beyond {REACH:g} A"
            return f"the nearest neighbour of {_named(atoms, k)} is {how} away, {far:.2f} A at most in the data"
        return ""


def _lengths(atoms: Atoms, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    vectors = atoms.positions[j] - atoms.positions[i]
    if not len(vectors) or not atoms.pbc.any():
        return np.linalg.norm(vectors, axis=1)
    return find_mic(vectors, atoms.cell, atoms.pbc)[1]


def _named(atoms: Atoms, *which: Any) -> str:
    """``C0-H4``: symbols with the places of atoms, counted from 0."""
    return "-".join(f"{symbols([int(atoms.numbers[k])])}{k}" for k in which)
