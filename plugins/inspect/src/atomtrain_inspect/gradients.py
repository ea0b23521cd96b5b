"""Forces and stress: whether they belong to the energies, their sizes, outliers and sums."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from atomtrain.data.consistency import (
    Fit,
    Work,
    factor_of_forces,
    fit,
    misfit_of_forces,
    near,
    pairs_of_alike,
    work,
)
from atomtrain.graph import volumes
from atomtrain.targets import TargetInfo
from atomtrain_inspect.energies import outliers
from atomtrain_inspect.finding import Finding, Report
from atomtrain_inspect.sets import Looked
from atomtrain_inspect.stress import Judgement, judge

PAIRS = 1000
"""pairs of structures that are compared"""
FAR = 5.0
"""times that three in four pairs are off, from which a pair is wrong"""
NET = 0.05
"""of the forces' size, beyond which their sum is not zero"""


def labels(looked: Looked, report: Report, name: str, info: TargetInfo) -> None:
    """All that is said of forces and stress of the energy ``name``."""
    store, unit, length = looked.store, info.unit, looked.length_unit
    forces = store.labels.get(f"{name}:forces")
    if forces is not None and bool(forces.there.any()):
        _forces(looked, report, name, info)
    else:
        report.fact(name, "without forces")
    ways = work(store, name, pairs_of_alike(store, PAIRS))
    ways = _scaled(ways, looked.angstrom)
    factor = 1.0
    if forces is not None and bool(forces.there.any()):
        factor = _belonging(looked, report, name, info, near(ways, "angstrom"))
    if f"{name}:strain" not in store.labels:
        return
    strains = ways[ways.strain >= 1e-5]
    means = volumes(store.cells)[torch.from_numpy(strains.pairs)].mean(1).numpy()
    files = np.array([looked.order[0][i] for i in strains.pairs[:, 0].tolist()], dtype=np.int64)
    said = []
    for file in np.unique(files).tolist():
        rows = files == file
        found = _judged(strains[rows], factor, means[rows], unit, length)
        path = looked.place(int(strains.pairs[rows][0, 0]))[0]
        if found.what:
            report.findings.append(
                Finding(
                    "stress",
                    "serious",
                    f"the stress of '{name}' in {_file(looked, strains[rows])} does not belong to the energies: "
                    f"{found.what} (so {100 * found.explained:.0f} % of the changes in {found.pairs} pairs of strained "
                    "structures are explained); say unit, positive or virial in the options, or correct the file",
                    [looked.place(int(strains[rows].pairs[0, 0]))],
                )
            )
        elif found.judged:
            said.append(
                f"stress in '{path}' belongs to the energies ({found.pairs} pairs of strained structures, "
                f"{100 * found.explained:.0f} % explained)"
            )
    if not said and not any(f.check == "stress" for f in report.findings):
        said = [
            "it cannot be judged whether the stress belongs to the energies: it takes strained copies"
        ]
    for line in said:
        report.fact(name, line)


def _file(looked: Looked, of: Work) -> str:
    """The file that the pairs are in, and the first structure."""
    place, frame = looked.place(int(of.pairs[0, 0]))
    return f"'{place}' (structure {frame} and others)"


def _judged(of: Work, factor: float, means: np.ndarray, unit: str, length: str) -> Judgement:
    """Of strained pairs, where energies change by a ``factor`` times the work of the forces: either may be wrong."""
    tries = [
        judge(Work(**{**vars(of), "forces": factor * of.forces}), means, unit, length),
        judge(Work(**{**vars(of), "energy": of.energy / factor}), means, unit, length),
    ]
    return max(tries, key=lambda one: (one.judged, not one.what, one.explained))


def _scaled(of: Work, angstrom: float) -> Work:
    """With displacements in angstrom."""
    return Work(**{**vars(of), "size": of.size * angstrom})


def _belonging(looked: Looked, report: Report, name: str, info: TargetInfo, of: Work) -> float:
    """Whether forces belong to energies, file by file; gives the factor of the forces' work that fits."""
    files = looked.order[0][of.pairs[:, 0]] if len(of.pairs) else np.zeros(0, dtype=np.int64)
    factors, judged = [], False
    for file in np.unique(files).tolist():
        here = of[files == file]
        path = looked.place(int(here.pairs[0, 0]))[0]
        found = factor_of_forces(here)
        said = misfit_of_forces(found, info.unit, looked.length_unit)
        shifted = _shifted(looked, name, here, found)
        if shifted or _unrelated(here, found):
            judged = True
            report.findings.append(
                Finding(
                    "labels-elsewhere",
                    "serious",
                    f"'{name}' in {_file(looked, here)} changes between close frames by what forces do not explain: "
                    f"{shifted or 'energies and forces are not of the same structures'}; make the file anew",
                    [looked.place(int(here.pairs[0, 0]))],
                )
            )
            continue
        if said:
            atoms = _per_atom(looked, here, found.factor)
            check = "forces-sign" if found.factor < 0 else "forces-unit"
            report.findings.append(
                Finding(
                    check,
                    "serious",
                    f"'{name}' in {_file(looked, here)}: {atoms or said}",
                    [looked.place(int(here.pairs[0, 0]))],
                )
            )
        if found.believed:
            judged = True
            factors.append(found.factor)
            if not said:
                report.fact(
                    name,
                    f"forces in '{path}' belong to the energies: these change by {found.factor:.3g} times the "
                    f"work of the forces ({found.pairs} pairs of structures that are alike, "
                    f"{100 * found.explained:.0f} % explained)",
                )
            report.findings += _exchanged(looked, name, here, found.factor)
    if not judged:
        report.fact(
            name,
            f"it cannot be judged whether forces belong to the energies (pairs of structures that are close "
            f"enough: {len(of.pairs)})",
        )
    return float(np.median(factors)) if factors else 1.0


def _per_atom(looked: Looked, of: Work, factor: float) -> str:
    """A sentence, if energies turn out to be those of one atom."""
    n = looked.store.n_atoms.numpy()[of.pairs[:, 0]]
    total = fit(of.energy * n, of.forces)
    if n.min() < 4 or not total.believed or not 0.8 < total.factor < 1.25:
        return ""
    return (
        f"energies change by {factor:.3g} times the work of the forces, and times the number of atoms that is "
        f"{total.factor:.3g}: the energies are per atom; multiply them by the number of atoms"
    )


def _unrelated(of: Work, found: Fit) -> bool:
    """Whether energies change by more than the forces of frames this close can have left out."""
    left = np.abs(of.energy - of.forces)
    good = np.isfinite(left) & (of.size < 0.15)
    enough = not found.believed and good.sum() >= 20
    return bool(enough and left[good].sum() > 2 * np.abs(of.midway[good]).sum())


def _shifted(looked: Looked, name: str, of: Work, found: Fit) -> str:
    """What is said of energies that fit forces better as those of a frame before or after; empty: they do not."""
    label = looked.store.labels[name].values.numpy()[:, 0]
    following = of[of.pairs[:, 1] == of.pairs[:, 0] + 1]
    as_is = fit(following.energy, following.forces).explained
    for lag in (-1, 1, -2, 2):
        rows = following.pairs + lag
        inside = ((rows >= 0) & (rows < len(label))).all(1)
        rows = rows % len(label)
        changes = np.where(inside, label[rows[:, 1]] - label[rows[:, 0]], np.nan)
        other = fit(changes, following.forces)
        if other.believed and other.factor > 0 and other.explained > as_is + 0.15:
            where = "before" if lag > 0 else "after"
            return f"a frame has the energy of the one {abs(lag)} {where} the one that its forces are of"
    return ""


def _exchanged(looked: Looked, name: str, of: Work, factor: float) -> Iterator[Finding]:
    """Structures whose labels do not fit those of any that is alike."""
    left = np.abs(of.energy - factor * of.forces)
    good = np.isfinite(left)
    if good.sum() < 20:
        return
    # how far off forces are grows with how much they change on the way
    change = np.abs(factor * of.midway) + 1e-12
    bad = good & (left > FAR * np.quantile(left[good], 0.75))
    bad &= left / change > FAR * np.quantile((left / change)[good], 0.75)
    least: dict[int, list[bool]] = {}
    for (i, j), wrong in zip(of.pairs[good].tolist(), bad[good].tolist(), strict=True):
        for k in (i, j):
            least.setdefault(k, []).append(wrong)
    wrong = [k for k, those in least.items() if len(those) >= 2 and all(those)]
    if wrong and len(wrong) <= max(2, 0.05 * len(least)):
        yield looked.finding(
            "labels-exchanged",
            "serious",
            sorted(wrong),
            f"have '{name}' or forces that do not belong to them: energies differ from those of their neighbours by "
            "far more than forces explain",
            "their labels were exchanged, reordered or did not converge: compute them anew, or leave them out",
        )


def _forces(looked: Looked, report: Report, name: str, info: TargetInfo) -> None:
    """Sizes, outliers, sums and torques."""
    store = looked.store
    label = store.labels[f"{name}:forces"]
    there, forces = label.there.all(1).numpy(), label.values.numpy()
    starts = store.offsets.numpy()[:-1]
    whole = np.logical_and.reduceat(there, starts)
    unit = f"{info.unit}/{looked.length_unit}" if info.unit else "(no unit given)"
    size = np.linalg.norm(forces, axis=1)
    largest = np.where(whole, np.maximum.reduceat(size, starts), np.nan)
    report.fact(
        name,
        f"forces in {int(whole.sum())} structures: {np.sqrt(np.mean(forces[there] ** 2)):.3g} {unit} in the mean "
        f"(root mean square of components), the largest {size[there].max():.4g}",
    )
    far = outliers(largest)
    far = far[largest[far] > np.nanmedian(largest)] if len(far) else far
    if len(far):
        report.findings.append(
            looked.finding(
                "force-outlier",
                "warning",
                far.tolist(),
                f"have forces far beyond the others, of which half have none above {np.nanmedian(largest):.3g} {unit}",
                "make sure that they converged and are meant, or leave them out",
                [f"{largest[k]:.4g}" for k in far[:3]],
            )
        )
    if not whole.any():
        return
    n = store.n_atoms.numpy()
    scale = np.sqrt(np.add.reduceat(size**2, starts)) + 1e-12
    net = np.linalg.norm(np.add.reduceat(forces, starts), axis=1)
    bad = _unbalanced(net, scale, n, whole, whole & (n > 1))
    if len(bad):
        report.findings.append(
            looked.finding(
                "net-force",
                "warning",
                bad.tolist(),
                f"have forces whose sum is not zero (beyond {100 * NET:.0f} % of their size)",
                "no potential gives such: atoms or a field may be missing, or calculations did not converge; repair or "
                "leave them out",
                [f"{net[k]:.3g} {unit}" for k in bad[:3]],
            )
        )
    free = ~store.pbc.any(1).numpy() & whole & (n > 1)
    if not free.any():
        return
    middle = np.add.reduceat(store.positions.numpy(), starts) / n[:, None]
    arms = store.positions.numpy() - np.repeat(middle, n, axis=0)
    torque = np.linalg.norm(np.add.reduceat(np.cross(arms, forces), starts), axis=1)
    lever = np.sqrt(np.add.reduceat((np.linalg.norm(arms, axis=1) * size) ** 2, starts)) + 1e-12
    bad = _unbalanced(torque, lever, n, free, free)
    if len(bad):
        report.findings.append(
            looked.finding(
                "torque",
                "warning",
                bad.tolist(),
                f"are not periodic, and their forces would turn them (a torque beyond {100 * NET:.0f} % of its parts)",
                "forces may belong to other atoms, to a turned copy, or be not converged; repair or leave them out",
                [f"{torque[k]:.3g}" for k in bad[:3]],
            )
        )


def _unbalanced(
    total: np.ndarray, size: np.ndarray, n: np.ndarray, known: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Which structures of those ``asked`` have parts that do not cancel, the worst first.

    ``total`` of the parts and their ``size``, all ``[n_structures]``; of small parts the usual size of those
    ``known`` counts.
    """
    usual = np.median(size[known] / np.sqrt(n[known]))
    bad = np.flatnonzero(asked & (total > NET * np.maximum(size, usual * np.sqrt(n))))
    return bad[np.argsort(-total[bad] / size[bad])]
