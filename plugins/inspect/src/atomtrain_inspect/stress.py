"""Whether stress belongs to energies: which sign, factor and order of its components explain what strain does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from atomtrain.data.consistency import BELIEVED, ENOUGH, NEAR, Work
from atomtrain.targets.units import conversion

STRAINED = 5e-4
"""strain from which a pair of structures tells of the stress"""
SHEARS = ("yz", "xz", "xy")
ORDERS: dict[tuple[int, ...], str] = {
    (0, 1, 2): "xx, yy, zz, yz, xz, xy (ASE)",
    (2, 0, 1): "xx, yy, zz, xy, yz, xz (VASP)",
    (2, 1, 0): "xx, yy, zz, xy, xz, yz (LAMMPS)",
}


@dataclass(frozen=True)
class Judgement:
    """What the strained pairs say: ``what`` is wrong (empty: nothing), how many pairs, and the part of the changes that
    is explained with it; ``judged``: whether they say anything."""

    what: str
    pairs: int
    explained: float
    judged: bool


def judge(of: Work, volumes: np.ndarray, energy: str, length: str) -> Judgement:
    """Of pairs ``[n]`` with the mean ``volumes`` of their cells; ``of.forces`` are nan, or such that they belong to the
    energies."""
    inner = np.where(np.isfinite(of.forces), of.forces, np.where(of.size < 1e-6, 0.0, np.nan))
    changes, strain, stress = of.energy - inner, of.stress[:, 0], of.stress[:, 1]
    good = np.isfinite(changes) & np.isfinite(stress).all(1) & (of.strain >= STRAINED)
    good &= (of.strain < 0.15) & (of.size <= NEAR)
    good &= np.abs(inner) < 0.5 * np.abs(
        of.energy
    )  # of others the error of the forces' work is too large
    if good.sum() < ENOUGH:
        return Judgement("", int(good.sum()), 0.0, False)
    size = np.abs(of.energy)  # no pair counts for much more than another
    weights = 1 / (size + np.median(size[good]) + 1e-12)
    changes, strain, stress, volumes, weights = (
        x[good] for x in (changes, strain, stress, volumes, weights)
    )
    stretched = (strain * stress)[:, :3].sum(1)
    sheared = {
        order: (strain[:, 3:] * stress[:, [3 + k for k in order]]).sum(1)
        for order in permutations(range(3))
    }
    scales = dict(_scales(volumes, energy, length))
    tries = {
        (sign, what): max(
            _explained(changes, sign * scale * (stretched + w), weights) for w in sheared.values()
        )
        for what, scale in scales.items()
        for sign in (1, -1)
    }
    (sign, what), best = max(tries.items(), key=lambda item: item[1])
    if tries[1, ""] >= best - 0.1:
        sign, what, best = 1, "", tries[1, ""]
    wrong = [_said(what, sign)] if what or sign < 0 else []
    # what shear does beside the rest, which says nothing of the order
    scale = sign * scales[what]
    left = changes - scale * stretched
    orders = {o: _explained(left, scale * w, weights) for o, w in sheared.items()}
    order = max(orders, key=lambda one: orders[one])
    if orders[order] >= BELIEVED and orders[order] > orders[0, 1, 2] + 0.2:
        found = _inverse(order)
        said = ORDERS.get(found, ", ".join(["xx, yy, zz", *(SHEARS[k] for k in found)]))
        wrong.append(f"its components are in another order, {said}")
    judged = best >= BELIEVED
    return Judgement("; and ".join(wrong) if judged else "", len(changes), best, judged)


def _explained(changes: np.ndarray, work: np.ndarray, weights: np.ndarray) -> float:
    """The part of the changes ``[n]`` that the work is."""
    total = (weights * np.abs(changes)).sum()
    return float(1 - (weights * np.abs(changes - work)).sum() / total) if total > 0 else 0.0


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    found = [0, 0, 0]
    for k, place in enumerate(order):
        found[place] = k
    return tuple(found)


def _scales(volumes: np.ndarray, energy: str, length: str) -> Iterator[tuple[str, np.ndarray]]:
    """By what the label times volume may have to be multiplied, and what that means."""
    one = np.ones(len(volumes))
    yield "", one
    own = f"{energy or 'eV'}/{length or 'angstrom'}^3"
    for unit in ("GPa", "kbar", "bar", "eV/angstrom^3", "hartree/bohr^3"):
        factor = conversion(unit, own)
        if abs(np.log(factor)) > 0.1:
            yield f"in {unit}, where {own} is expected", factor * one
    yield "virial", 1 / volumes
    yield "stress", volumes


def _said(what: str, sign: int) -> str:
    if what == "virial":
        kind = "a virial (minus volume times stress)" if sign < 0 else "volume times stress"
        return f"it is {kind}, taken for a stress"
    if what == "stress":
        return "it is a stress, taken for a virial"
    wrong = "it has the wrong sign (positive under compression)" if sign < 0 else ""
    return " and ".join(filter(None, [wrong, f"it is {what}" if what else ""]))
