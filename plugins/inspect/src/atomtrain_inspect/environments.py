"""Pairs of close atoms: the shortest of each two elements, and numbers by which structures are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import vesin

from atomtrain.data import StructureStore
from atomtrain.data.consistency import positions
from atomtrain.targets.units import conversion

CUTOFF = 5.0
"""angstrom"""
CENTERS = np.linspace(0.8, 4.8, 9)
"""of the radial functions, angstrom"""
CHANNELS = 4
"""mixtures of elements that a neighbour counts in"""


@dataclass(frozen=True)
class Shortest:
    """Two elements, the shortest distance of two such atoms (angstrom), and where it is."""

    first: int
    second: int
    distance: float
    structure: int


@dataclass(frozen=True)
class Environments:
    """``shortest`` distances, the shortest first, and ``features [n, width]`` of each structure.

    Structures that are the same up to order, rotation and small displacements have nearly the same features; the
    opposite need not hold.
    """

    shortest: list[Shortest]
    features: np.ndarray


def environments(store: StructureStore, length_unit: str) -> Environments:
    """Of all structures of a store."""
    angstrom = conversion(length_unit or "angstrom", "angstrom")
    types = store.types.numpy()
    mixtures = np.random.default_rng(0).normal(size=(120, CHANNELS))
    weights = mixtures[np.minimum(types, 119)]
    calculator = vesin.NeighborList(cutoff=CUTOFF / angstrom, full_list=False)
    shortest: dict[tuple[int, int], Shortest] = {}
    features = np.zeros((len(store), CHANNELS, CHANNELS, len(CENTERS)))
    cells, pbc, offsets = store.cells.numpy(), store.pbc.numpy(), store.offsets.numpy()
    for k in range(len(store)):
        atoms = slice(int(offsets[k]), int(offsets[k + 1]))
        periodic = bool(pbc[k].any())
        i, j, d = calculator.compute(
            points=positions(store, k),
            box=cells[k] if periodic else np.zeros((3, 3)),
            periodic=pbc[k] if periodic else False,
            quantities="ijd",
        )
        if not len(d):
            continue
        i, j, d = i.astype(np.int64), j.astype(np.int64), d * angstrom
        z = types[atoms]
        pair = np.minimum(z[i], z[j]) * 1000 + np.maximum(z[i], z[j])
        for code in np.unique(pair).tolist():
            those = np.flatnonzero(pair == code)
            least = those[d[those].argmin()]
            key = (code // 1000, code % 1000)
            if key not in shortest or d[least] < shortest[key].distance:
                shortest[key] = Shortest(key[0], key[1], float(d[least]), k)
        fade = 0.5 * (1 + np.cos(np.pi * d / CUTOFF))
        radial = fade[:, None] * np.exp(-0.5 * ((d[:, None] - CENTERS) / 0.5) ** 2)
        w = weights[atoms]
        both = np.einsum("pa,pb,pr->abr", w[i], w[j], radial, optimize=True)
        features[k] = (both + both.transpose(1, 0, 2)) / len(z)
    return Environments(
        sorted(shortest.values(), key=lambda one: one.distance), features.reshape(len(store), -1)
    )
