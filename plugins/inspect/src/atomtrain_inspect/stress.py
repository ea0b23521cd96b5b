"""Whether stress belongs to energies: which sign, factor and order of its components explain what strain does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from atomtrain.data.work import BELIEVED, ENOUGH, NEAR, Work
from atomtrain.targets.units import conversion

STRAINED = 5e-4
"""strain from which a pair of structures tells of the stress"""
FEWEST = 5
ORDERS = {
    (0, 1, 2): "xx, yy, zz, yz, xz, xy (ASE)",
    (2, 0, 1): "xx, yy, zz, xy, yz, xz (VASP)",
    (2, 1, 0): "xx, yy, zz, xy, xz, yz (LAMMPS)",
}


@dataclass(frozen=True)
class Judgement:
    """What the strained pairs say: a sentence's middle (empty: all is well), how many pairs, and the part of the changes
    that is explained with it; ``judged``: whether they say anything."""

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
    if good.sum() < FEWEST:
        return Judgement("", int(good.sum()), 0.0, False)
    changes, strain, stress, volumes = changes[good], strain[good], stress[good], volumes[good]
    shear = np.abs(strain[:, 3:]).max(1)
    plain = shear < 0.5 * np.abs(strain[:, :3]).max(1)
    used = plain if plain.sum() >= FEWEST else np.ones(len(plain), dtype=bool)

    def explained(rows: np.ndarray, scale: np.ndarray, order: tuple[int, ...] = (0, 1, 2)) -> float:
        columns = [0, 1, 2, *(3 + k for k in order)]
        left = changes - scale * (strain * stress[:, columns]).sum(1)
        total = np.abs(changes[rows]).sum()
        return float(1 - np.abs(left[rows]).sum() / total) if total > 0 else 0.0

    one = np.ones(len(changes))
    tries = {
        (sign, what): explained(used, sign * scale)
        for what, scale in _scales(volumes, energy, length)
        for sign in (1, -1)
    }
    (sign, what), best = max(tries.items(), key=lambda item: item[1])
    plainly = tries[1, ""]
    if plainly >= best - 0.1:
        sign, what, best = 1, "", plainly
    scale = sign * next(scale for name, scale in _scales(volumes, energy, length) if name == what)
    wrong = []
    if best >= BELIEVED and (what or sign < 0):
        wrong.append(_said(what, sign))
    sheared = ~plain
    if best >= BELIEVED or not plain.sum() >= FEWEST:
        order, with_order, as_is = (0, 1, 2), 0.0, 0.0
        if sheared.sum() >= FEWEST:
            orders = {o: explained(sheared, scale, o) for o in permutations(range(3))}
            order, with_order = max(orders.items(), key=lambda item: item[1])
            as_is = orders[0, 1, 2]
        if with_order >= BELIEVED and with_order > as_is + 0.2:
            names = ["yz", "xz", "xy"]
            # the file's column at the place of a component is another one
            said = ORDERS.get(_inverse(order), ", ".join(names[k] for k in _inverse(order)))
            wrong.append(
                f"its components are in another order: what is read as xx, yy, zz, yz, xz, xy is {said}"
            )
            best = max(best, with_order)
    judged = len(changes) >= ENOUGH and best >= BELIEVED
    return Judgement("; and ".join(wrong) if judged else "", len(changes), best, judged)


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
