"""The data: structures to start from, the distances they have, and how they are distributed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import vesin
from ase import Atoms
from ase.data import covalent_radii

from atomtrain.data import Datasets, Structures
from atomtrain.sections.names import symbols

log = logging.getLogger("atomtrain")
MOST_STRUCTURES = 2000
"""of the data are looked at, evenly taken"""
MOST_OF_A_KIND = 500
REACH = 6.0
"""angstrom: as far as distances in periodic structures and large molecules are looked at"""
ALL_PAIRS = 300
"""atoms of a molecule whose distances are all looked at"""
BIN = 0.05
"""angstrom"""
ELEMENTS = len(covalent_radii)


@dataclass(frozen=True)
class Structure:
    """A structure of the data and where it came from."""

    atoms: Atoms
    name: str
    file: str | None = None
    frame: int | None = None


def structures_of(store: Structures, length_unit: str, most: int) -> list[Structure]:
    """Up to ``most`` structures of a set, evenly taken, in angstrom; it is said where these are not all."""
    rows = np.unique(np.linspace(0, len(store) - 1, min(most, len(store))).astype(np.int64))
    if len(rows) < len(store):
        log.warning(
            f"dynamics: {len(rows):,} of {len(store):,} structures are looked at, from all over them: the data's "
            "shortest distances and distributions are those of these"
        )
    some = store.select(torch.from_numpy(rows))
    found = []
    for k in range(len(some)):
        file, frame = (None, None) if some.origins is None else some.origins[k].tolist()
        name = None if file is None else some.files[file]
        found.append(Structure(some.atoms(k, length_unit), some.origin(k), name, frame))
    return found


def of_sets(data: Datasets) -> tuple[list[Structure], list[Structure], str]:
    """The training set, and the set that dynamics start from with its name: test, else validation, else training."""
    unit, sets = data.info.length_unit, data.sets
    name = next(name for name in ("test", "validation", "training") if sets[name] is not None)
    seen = structures_of(data.train, unit, MOST_STRUCTURES)
    chosen = sets[name]
    assert chosen is not None
    return seen, structures_of(chosen, unit, MOST_STRUCTURES), name


class Pairs(NamedTuple):
    """Pairs of atoms, each once: indices ``i`` and ``j [n]``, distances ``d [n]`` in angstrom."""

    i: np.ndarray
    j: np.ndarray
    d: np.ndarray


def limited(atoms: Atoms) -> bool:
    """Whether only distances up to :data:`REACH` are looked at."""
    return bool(atoms.pbc.any()) or len(atoms) > ALL_PAIRS


def pairs_of(atoms: Atoms) -> Pairs:
    """All pairs of a molecule; those within :data:`REACH` of what is large or periodic, images too."""
    if not limited(atoms):
        i, j = np.triu_indices(len(atoms), k=1)
        return Pairs(i, j, np.linalg.norm(atoms.positions[j] - atoms.positions[i], axis=1))
    neighbours = vesin.NeighborList(cutoff=REACH, full_list=False)
    periodic = atoms.pbc.any()
    i, j, d = neighbours.compute(
        points=atoms.positions,
        box=atoms.cell.array if periodic else np.zeros((3, 3)),
        periodic=atoms.pbc if periodic else False,
        quantities="ijd",
    )
    return Pairs(i.astype(np.int64), j.astype(np.int64), d)


def nearest(atoms: Atoms, pairs: Pairs) -> np.ndarray:
    """The distance of each atom to its nearest neighbour, [n_atoms]; infinite where there is none."""
    found = np.full(len(atoms), np.inf)
    np.minimum.at(found, pairs.i, pairs.d)
    np.minimum.at(found, pairs.j, pairs.d)
    return found


def closest(numbers: np.ndarray, pairs: Pairs) -> np.ndarray:
    """The shortest distance of each two elements, [ELEMENTS, ELEMENTS], the smaller number first."""
    found = np.full((ELEMENTS, ELEMENTS), np.inf)
    np.minimum.at(found, _elements(numbers, pairs), pairs.d)
    return found


def _elements(numbers: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    first, second = numbers[pairs.i], numbers[pairs.j]
    return np.minimum(first, second), np.maximum(first, second)


@dataclass(frozen=True)
class Seen:
    """What data have of distances, in angstrom.

    ``closest [ELEMENTS, ELEMENTS]``: the shortest of each two elements (infinite: never seen).
    ``alone [ELEMENTS]``: the farthest that the nearest neighbour of an atom was (zero: never seen).
    """

    closest: np.ndarray
    alone: np.ndarray

    @classmethod
    def of(cls, data: Iterable[Structure]) -> Seen:
        """What these structures have."""
        shortest = np.full((ELEMENTS, ELEMENTS), np.inf)
        alone = np.zeros(ELEMENTS)
        for one in data:
            pairs = pairs_of(one.atoms)
            if not len(pairs.d):
                continue
            np.minimum.at(shortest, _elements(one.atoms.numbers, pairs), pairs.d)
            np.maximum.at(alone, one.atoms.numbers, nearest(one.atoms, pairs))
        return cls(shortest, alone)


# -- distributions -------------------------------------------------------------------------------

Kind = tuple[bytes, bool]
"""structures whose distances are distributed alike: their composition, and whether they are periodic"""


def kind_of(atoms: Atoms) -> Kind:
    """The kind of a structure."""
    return np.sort(atoms.numbers).tobytes(), bool(atoms.pbc.any())


def kind_name(kind: Kind) -> str:
    """``C2H6O``."""
    numbers = np.frombuffer(kind[0], dtype=np.int64)
    return str(Atoms(numbers).symbols.formula.format("hill"))


@dataclass
class Distribution:
    """How distances of structures of one kind are distributed, by pair of elements.

    Of molecules the density of distances, 1/A; of periodic structures the radial distribution function up to
    :data:`REACH`, which is one where atoms know nothing of each other.
    """

    frames: int = 0
    sums: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    weights: dict[tuple[int, int], float] = field(default_factory=dict)
    """pairs of atoms of a structure"""

    def add(self, atoms: Atoms, pairs: Pairs) -> None:
        """Count a structure."""
        self.frames += 1
        first, second = _elements(atoms.numbers, pairs)
        periodic = atoms.pbc.any()
        there, counts = np.unique(atoms.numbers, return_counts=True)
        for a, number_a in zip(there.tolist(), counts.tolist(), strict=True):
            for b, number_b in zip(there.tolist(), counts.tolist(), strict=True):
                if a > b:
                    continue
                number = number_a * number_b if a != b else number_a * (number_a - 1) / 2
                if periodic and a == b:  # an atom and its own images are pairs as well
                    number = number_a**2 / 2
                if not number:
                    continue
                found = pairs.d[(first == a) & (second == b)]
                places = (found / BIN).astype(np.int64)
                histogram = np.bincount(places) / (number * BIN)
                if periodic:
                    radii = BIN * (np.arange(len(histogram)) + 0.5)
                    histogram *= _volume(atoms) / (4 * np.pi * radii**2)
                self.weights[a, b] = number
                self.sums[a, b] = _added(self.sums.get((a, b), np.zeros(0)), histogram)

    def of(self, pair: tuple[int, int]) -> np.ndarray:
        """The distribution for two elements, by bins of :data:`BIN`."""
        return self.sums[pair] / self.frames

    def difference(self, other: Distribution, pair: tuple[int, int]) -> float:
        """How different two distributions are: 0 where they are the same, 1 where they have nothing in common."""
        both = _added(self.of(pair), other.of(pair), 1.0), _added(self.of(pair), other.of(pair), -1)
        total = float(both[0].sum())
        return float(np.abs(both[1]).sum()) / total if total else 0.0

    def distance(self, other: Distribution) -> float:
        """The mean of the differences, by pairs of atoms."""
        weights = [self.weights[pair] for pair in self.sums]
        return float(
            np.average([self.difference(other, pair) for pair in self.sums], weights=weights)
        )


def _added(a: np.ndarray, b: np.ndarray, sign: float = 1.0) -> np.ndarray:
    found = np.zeros(max(len(a), len(b)))
    found[: len(a)] += a
    found[: len(b)] += sign * b
    return found


def _volume(atoms: Atoms) -> float:
    """The volume; of a layer or a chain what its atoms take in the directions that end."""
    lengths = np.ptp(atoms.positions, axis=0) + 2.0
    cell = atoms.cell.array.copy()
    for k in np.flatnonzero(~atoms.pbc):
        cell[k] = np.eye(3)[k] * lengths[k] if not cell[k].any() else cell[k]
    return float(abs(np.linalg.det(cell)))


@dataclass(frozen=True)
class Reference:
    """The distribution of one kind in the data, and of either half of them, which says how well it is known."""

    whole: Distribution
    halves: tuple[Distribution, Distribution]

    @classmethod
    def of(cls, data: Sequence[Structure], kind: Kind) -> Reference:
        """That of the structures of this kind, of some of them where there are many."""
        alike = [one.atoms for one in data if kind_of(one.atoms) == kind]
        chosen = np.linspace(0, len(alike) - 1, min(len(alike), MOST_OF_A_KIND)).astype(int)
        whole, halves = Distribution(), (Distribution(), Distribution())
        for n, k in enumerate(chosen.tolist()):
            pairs = pairs_of(alike[k])
            for distribution in (whole, halves[n % 2]):
                distribution.add(alike[k], pairs)
        return cls(whole, halves)

    @property
    def own(self) -> float | None:
        """The distance between the halves; None where there is but one structure."""
        first, second = self.halves
        return first.distance(second) if second.frames else None


def pair_name(pair: tuple[int, int]) -> str:
    """``C-H``."""
    return symbols(pair, "-")
