"""What energies say of their unit, their atoms and their outliers: functions of plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNITS = {"hartree": 1.0, "eV": 27.2114, "kcal/mol": 627.51, "kJ/mol": 2625.5}
"""of one hartree"""
FAR = 10.0
"""an outlier is so many times farther from the median than nine in ten are"""
FEW = 0.02
"""what more than this part of the structures have is no outlier"""


def all_electron(numbers: np.ndarray) -> np.ndarray:
    """Total energies of atoms by atomic number, in hartree, within a few percent (Thomas and Fermi, with the
    corrections of Scott and Schwinger)."""
    z = np.asarray(numbers, dtype=float)
    return -0.76875 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3)


def unit_of_totals(energies: np.ndarray, counts: np.ndarray, elements: np.ndarray) -> str:
    """The unit of energies ``[n]`` of all electrons of structures with ``counts [n, n_elements]`` of these atoms; empty
    where they are other energies."""
    there = np.isfinite(energies)
    if not there.any():
        return ""
    ratios = energies[there] / (counts[there] @ all_electron(elements))
    ratio = float(np.median(ratios))
    if ratio <= 0 or np.abs(ratios / ratio - 1).max() > 0.06:
        return ""
    found = min(UNITS, key=lambda unit: abs(np.log(ratio / UNITS[unit])))
    return found if abs(ratio / UNITS[found] - 1) < 0.05 else ""


@dataclass(frozen=True)
class Composition:
    """Energies as sums over atoms: ``atoms [n_elements]`` as far as the data tell, what is ``left [n]`` per atom, and
    of how many numbers the compositions determine ``rank``."""

    atoms: np.ndarray
    left: np.ndarray
    rank: int


def composition(energies: np.ndarray, counts: np.ndarray) -> Composition:
    """Of energies ``[n]`` (nan where there is none) of structures with ``counts [n, n_elements]``, by least squares
    that pass over outliers."""
    size = counts.sum(1)
    good = np.isfinite(energies)
    matrix, target = counts / size[:, None], energies / size
    rank = int(np.linalg.matrix_rank(matrix[good], tol=1e-3 * np.sqrt(max(good.sum(), 1))))
    if good.sum() == 0:
        return Composition(np.zeros(counts.shape[1]), np.full(len(energies), np.nan), 0)
    used = good
    for _ in range(3):
        atoms = np.linalg.lstsq(matrix[used], target[used], rcond=1e-8)[0]
        left = target - matrix @ atoms
        usual = np.quantile(np.abs(left[used]), 0.9)
        again = good & (np.abs(left) <= 3 * usual + 1e-9)
        if np.linalg.matrix_rank(matrix[again]) < np.linalg.matrix_rank(matrix[good]):
            break
        used = again
    return Composition(atoms, left, rank)


def outliers(values: np.ndarray) -> np.ndarray:
    """Which of ``values [n]`` (nan: none) are far from all others, the farthest first; none where many are far."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) < 10:
        return known[:0]
    apart = np.abs(values[known] - np.median(values[known]))
    usual = np.quantile(apart, 0.9)
    far = known[apart > FAR * max(usual, 1e-9)]
    if len(far) > max(1, FEW * len(known)):
        return known[:0]
    order = np.argsort(-np.abs(values[far] - np.median(values[known])))
    found: np.ndarray = far[order]
    return found


def bound(energies: np.ndarray, counts: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Energies per atom ``[n]`` over those of atoms ``alone [n_elements]`` (nan where an element has none)."""
    used = np.where(counts > 0, counts * alone, 0.0).sum(1)
    return (energies - used) / counts.sum(1)
