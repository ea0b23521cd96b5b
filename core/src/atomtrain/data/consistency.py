"""Whether forces and stress belong to energies, seen in structures that are alike.

Between two structures with the same atoms the energy changes by what forces and stress do on the way: by half the
sum of both forces times the displacements and of both stresses times the strain, up to third order in the
step. Nothing here knows a model, so a sign or a unit that is wrong is seen before any training.

Small molecules are compared in inverse distances, in which a step may be longer than in Cartesian coordinates: turning
a methyl group changes few of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from atomtrain.data.store import StructureStore
from atomtrain.targets.units import conversion

NEAR = 0.4
"""root mean square displacement (angstrom) up to which two structures are compared"""
ENOUGH = 8
"""pairs that a judgement needs"""
BELIEVED = 0.7
"""part of the energies' changes that a factor must explain to be believed"""
AGREE = 1.5
"""factors up to this, and down to its inverse, are no mistake of units: the smallest of these is 1.89"""
SMALL = 24
"""atoms of a molecule that is compared in inverse distances"""
COMPARED = 2000
"""structures among which the nearest are looked for"""


@dataclass(frozen=True)
class Step:
    """The way from one structure to another with the same atoms: what is left without translation and rotation.

    ``displacements [n, 3]`` in the frame of the first; ``strain [3, 3]`` symmetric (its logarithm); ``rotation
    [3, 3]``: a row vector of the first times it is one of the second; ``stretch [3, 3]``, the deformation of the cell.
    """

    displacements: np.ndarray
    strain: np.ndarray
    rotation: np.ndarray
    stretch: np.ndarray

    @property
    def size(self) -> float:
        """Root mean square of the displacements, in their unit."""
        return float(np.sqrt((self.displacements**2).sum(1).mean()))


def step(store: StructureStore, first: int, second: int, order: np.ndarray | None = None) -> Step:
    """From structure ``first`` to ``second`` of a store; ``order [n]``: which atom of that is which of the first.

    Both need the same number of atoms and the same periodicity.
    """
    r1, r2 = (positions(store, k) for k in (first, second))
    if order is not None:
        r2 = r2[order]
    pbc = store.pbc[first].numpy()
    if not pbc.any():
        r1, r2 = r1 - r1.mean(0), r2 - r2.mean(0)
        u, _, vt = np.linalg.svd(r1.T @ r2)
        u[:, 2] *= np.sign(np.linalg.det(u @ vt)) or 1.0
        rotation = u @ vt
        return Step(r2 @ rotation.T - r1, np.zeros((3, 3)), rotation, np.eye(3))
    h1, h2 = (whole_cell(store.cells[k].numpy(), pbc) for k in (first, second))
    moved = r2 @ np.linalg.inv(h2) - r1 @ np.linalg.inv(h1)
    moved -= np.where(pbc, np.round(moved - moved[0]), 0.0)
    moved -= moved.mean(0)
    moved -= np.where(pbc, np.round(moved), 0.0)
    u, s, vt = np.linalg.svd(np.linalg.solve(h1, h2))
    strain, stretch = (u * np.log(s)) @ u.T, (u * s) @ u.T
    return Step((moved - moved.mean(0)) @ h1, strain, u @ vt, stretch)


def positions(store: StructureStore, k: int) -> np.ndarray:
    """Of one structure, [n, 3]."""
    found: np.ndarray = store.positions[int(store.offsets[k]) : int(store.offsets[k + 1])].numpy()
    return found


def whole_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """A cell ``[3, 3]`` with unit vectors where it is not periodic, across the others."""
    found = np.where(pbc[:, None], cell, 0.0)
    if pbc.all():
        return found
    _, _, directions = np.linalg.svd(found)
    free = int((~pbc).sum())
    found[~pbc] = directions[3 - free :]
    return found


def kinds(store: StructureStore) -> np.ndarray:
    """A number for each sequence of elements with its periodicity and extra data (a charge), [n]."""
    types, pbc = store.types.numpy(), store.pbc.numpy()
    known: dict[bytes, int] = {}
    states = store.states
    keys = (
        types[a:b].tobytes() + pbc[k].tobytes() + states[k]
        for k, (a, b) in enumerate(pairwise(store.offsets.tolist()))
    )
    return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


def pairs_of_alike(store: StructureStore, most: int) -> np.ndarray:
    """Pairs of structures with the same atoms in the same order that are close, ``[n, 2]``, each once.

    Up to ``most`` that follow one another in a file, whatever the order in the store, evenly chosen; and of small
    molecules up to ``most`` nearest ones.
    """
    kind = kinds(store)
    found = [*_following(store, kind, most)]
    sizes = np.bincount(kind)
    for one in np.argsort(-sizes).tolist():
        n = int(store.n_atoms[first := int(np.flatnonzero(kind == one)[0])])
        if most <= 0 or sizes[one] < ENOUGH or not 2 <= n <= SMALL or store.pbc[first].any():
            continue
        same = _even(np.flatnonzero(kind == one), COMPARED)
        found += _nearest(store, same, most)
        most -= len(same)
    return np.array(sorted({(min(i, j), max(i, j)) for i, j in found}), dtype=np.int64).reshape(
        -1, 2
    )


def _even(rows: np.ndarray, most: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def in_files(store: StructureStore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order [n] of the structures in their files, and the numbers of file and frame of each, as ordered."""
    if store.origins is None:
        return np.arange(len(store)), np.zeros(len(store), dtype=np.int64), np.arange(len(store))
    files, frames = store.origins.numpy().T
    # one file may have several numbers, where several sections read it
    names = {name: k for k, name in enumerate(dict.fromkeys(store.files))}
    files = np.array([names[name] for name in store.files], dtype=np.int64)[files]
    order = np.lexsort((frames, files))
    return order, files[order], frames[order]


def _following(store: StructureStore, kind: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    order, files, frames = in_files(store)
    a, b = order[:-1], order[1:]
    same = (files[1:] == files[:-1]) & (frames[1:] != frames[:-1]) & (kind[a] == kind[b])
    for k in _even(np.flatnonzero(same), most).tolist():
        yield int(a[k]), int(b[k])


def _nearest(store: StructureStore, rows: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """The two nearest, by their distances between atoms, of up to ``most`` of these molecules of the same atoms."""
    first = store.offsets.numpy()[rows]
    n = int(store.n_atoms[int(rows[0])])
    places = store.positions.numpy()[first[:, None] + np.arange(n)]
    i, j = np.triu_indices(n, 1)
    distances = np.linalg.norm(places[:, i] - places[:, j], axis=2)
    asked = _even(np.arange(len(rows)), most)
    squares = (distances**2).sum(1)
    apart = squares[asked, None] + squares[None] - 2 * distances[asked] @ distances.T
    apart[apart < 1e-9 * squares.max()] = np.inf  # itself and its copies
    two = min(2, len(rows) - 1)
    for k, others in zip(asked.tolist(), np.argpartition(apart, two - 1, 1)[:, :two], strict=True):
        for other in others.tolist():
            if np.isfinite(apart[np.searchsorted(asked, k), other]):
                yield int(rows[k]), int(rows[other])


@dataclass(frozen=True)
class Work:
    """What happens between pairs of structures ``[n, 2]``; nan where a label is not there.

    ``energy [n]``: its change; ``forces [n]``: what forces say of it; ``stress [n, 2, 6]``: factors of strain
    (xx, yy, zz, yz, xz, xy, twice the last three), and of each pair the mean of volume times stress; so the energy
    changes by forces plus stress. ``size [n]``: root mean square displacement; ``strain [n]``: its largest entry.
    ``midway [n]``: by how much the works of the first and the second frame's forces differ.
    """

    pairs: np.ndarray
    energy: np.ndarray
    forces: np.ndarray
    stress: np.ndarray
    size: np.ndarray
    strain: np.ndarray
    midway: np.ndarray

    def __getitem__(self, which: np.ndarray) -> Work:
        return Work(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


VOIGT = np.array([[0, 0], [1, 1], [2, 2], [1, 2], [0, 2], [0, 1]])
"""xx, yy, zz, yz, xz, xy, as in ASE"""


def work(store: StructureStore, name: str, pairs: np.ndarray) -> Work:
    """Of the energy ``name`` of a store, its forces and stress where there are any, between ``pairs [n, 2]``."""
    offsets = store.offsets.numpy()
    energies = _values(store, name)
    forces, strains = _values(store, f"{name}:forces"), _values(store, f"{name}:strain")
    n = len(pairs)

    @cache
    def inner(k: int) -> tuple[np.ndarray, np.ndarray]:
        assert forces is not None
        return _inverse_distances(positions(store, k), forces[offsets[k] : offsets[k + 1]])

    found = Work(
        pairs, np.full(n, np.nan), np.full(n, np.nan), np.full((n, 2, 6), np.nan), *np.zeros((3, n))
    )
    for k, (i, j) in enumerate(pairs.tolist()):
        way = step(store, i, j)
        if energies is not None:
            found.energy[k] = energies[j, 0] - energies[i, 0]
        found.size[k], found.strain[k] = way.size, np.abs(way.strain).max()
        if forces is not None:
            f, g = forces[offsets[i] : offsets[i + 1]], forces[offsets[j] : offsets[j + 1]]
            if not store.pbc[i].any() and 2 <= len(f) <= SMALL:
                (q, one), (p, other) = inner(i), inner(j)
                one, other = (one * (p - q)).sum(), (other * (p - q)).sum()
            else:
                one = (f * way.displacements).sum()
                other = ((g @ way.rotation.T) * (way.displacements @ way.stretch)).sum()
            found.forces[k], found.midway[k] = -0.5 * (one + other), one - other
        if strains is not None:
            turned = way.rotation @ strains[j].reshape(3, 3) @ way.rotation.T
            mean = 0.5 * (strains[i].reshape(3, 3) + turned)
            a, b = VOIGT.T
            found.stress[k, 0] = way.strain[a, b] * [1, 1, 1, 2, 2, 2]
            found.stress[k, 1] = mean[a, b]
    return found


def _inverse_distances(r: np.ndarray, forces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse distances between the atoms of a molecule ``[n_pairs]``, and the forces along them (the smallest that
    give the Cartesian ``forces [n, 3]``, without what only moves or turns the molecule)."""
    n = len(r)
    i, j = np.triu_indices(n, 1)
    vectors = r[i] - r[j]
    distances = np.linalg.norm(vectors, axis=1)
    slopes = -vectors / distances[:, None] ** 3
    jacobian, rows = np.zeros((len(i), n, 3)), np.arange(len(i))
    jacobian[rows, i], jacobian[rows, j] = slopes, -slopes
    flat = jacobian.reshape(len(i), 3 * n)
    metric = flat.T @ flat
    metric.flat[:: 3 * n + 1] += 1e-9 * np.trace(metric)  # moving and turning change no distance
    return 1 / distances, flat @ np.linalg.solve(metric, forces.reshape(-1))


def _values(store: StructureStore, key: str) -> np.ndarray | None:
    """A label with nan where there is none; None: it is not there at all."""
    label = store.labels.get(key)
    if label is None:
        return None
    return np.where(label.there.numpy(), label.values.numpy(), np.nan)


@dataclass(frozen=True)
class Fit:
    """``changes = factor x work``: the factor, the part of the changes that it explains (1: all), pairs, and a bound on
    the relative error of the factor."""

    factor: float
    explained: float
    pairs: int
    error: float

    @property
    def believed(self) -> bool:
        """Whether there is enough to go by."""
        return self.pairs >= ENOUGH and self.explained >= BELIEVED


def fit(changes: np.ndarray, work: np.ndarray) -> Fit:
    """The factor between two arrays ``[n]`` (nan is left out), of least absolute deviations, so that a few wrong pairs
    do not count; the same whichever of both is taken for the one with errors."""
    good = np.isfinite(changes) & np.isfinite(work)
    y, x = changes[good], work[good]
    n = len(x)
    if n == 0 or not x.any() or not y.any():
        return Fit(np.nan, 0.0, n, np.inf)
    best = Fit(np.nan, -np.inf, n, np.inf)
    for start in (_slope(y, x), 1 / (_slope(x, y) or np.inf)):
        left = np.abs(y - start * x)
        kept = left <= np.quantile(left, 0.8)
        one, other = _slope(y[kept], x[kept]), _slope(x[kept], y[kept])
        if one * other <= 0:
            continue
        factor = float(np.sign(one) * np.sqrt(one / other))
        left = np.abs(y - factor * x)
        weights = 1 / (
            np.abs(y) + np.abs(factor * x) + np.median(np.abs(y))
        )  # large ones do not rule
        explained = float(1.0 - (weights * left).sum() / (weights * np.abs(y)).sum())
        trimmed = left[left <= np.quantile(left, 0.8)]
        error = 3 * float(np.sqrt(np.mean(trimmed**2) / np.mean((factor * x[kept]) ** 2) / n))
        if explained > best.explained:
            best = Fit(factor, explained, n, error)
    return best


def _slope(y: np.ndarray, x: np.ndarray) -> float:
    """What minimises the sum of ``|y - slope x|``: the median of ratios, weighted by ``|x|``."""
    there = x != 0
    ratios, weights = y[there] / x[there], np.abs(x[there])
    order = np.argsort(ratios)
    half = np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum())
    return float(ratios[order][min(half, len(order) - 1)])


# -- trajectories -----------------------------------------------------------------------------

ONWARD = 1.2
"""two steps of a trajectory lead so many times farther than the longer of them, if its frames know of one another"""
ASKED = 60


def trajectory_warning(store: StructureStore, length_unit: str) -> str:
    """That frames of a file follow one another so closely that a random split leaks; empty where none do."""
    order, files, frames = in_files(store)
    kind = kinds(store)[order]
    same = (np.diff(files) == 0) & (np.diff(frames) == 1) & (np.diff(kind) == 0)
    firsts = np.flatnonzero(same[:-1] & same[1:])
    angstrom = conversion(length_unit or "angstrom", "angstrom")
    for file in np.unique(files[firsts]).tolist():
        some = _even(firsts[files[firsts] == file], ASKED)
        rows = [order[k : k + 3].tolist() for k in some.tolist()]
        steps = np.array(
            [[step(store, i, j).size for i, j in ((a, b), (b, c), (a, c))] for a, b, c in rows]
        )
        onward = steps[:, 2] > ONWARD * np.maximum(steps[:, :2].max(1), 1e-4 / angstrom)
        usual = float(np.median(steps[:, 0])) * angstrom
        if len(some) >= ENOUGH and onward.mean() > 0.7 and usual < 0.6:
            name, first = store.origin(rows[0][0]), f"{usual:.2g} A"
            return (
                f"{name} and others follow one another closely (atoms move by {first} from one to the next, and on "
                "from there): a random split puts neighbours on both sides, and errors on them are not those on new "
                "structures; split by blocks, {fraction: 0.1, by: block, gap: 10}"
            )
    return ""


# -- what a factor means ----------------------------------------------------------------------

ENERGIES = ("eV", "hartree", "kcal/mol", "kJ/mol", "meV", "rydberg")
LENGTHS = ("angstrom", "bohr", "nm")
_EV = {"rydberg": 13.605693}


def near(of: Work, length_unit: str) -> Work:
    """The pairs that forces alone can be judged by: of one cell, and close."""
    angstrom = conversion(length_unit or "angstrom", "angstrom")
    return of[(of.size * angstrom <= NEAR) & (of.strain < 1e-3) & (of.size > 0)]


def factor_of_forces(of: Work) -> Fit:
    """By what energies change for one unit of the forces' work; by the nearer pairs where those say more."""
    found, best = of, fit(of.energy, of.forces)
    while best.explained < 0.9 and len(found.size) >= 4 * ENOUGH:
        found = found[found.size <= np.median(found.size)]
        again = fit(found.energy, found.forces)
        if again.explained > best.explained:
            best = again
    return best


def misfit_of_forces(found: Fit, energy: str, length: str) -> str:
    """What is wrong with forces whose work has the factor ``found``, and the remedy; empty where nothing is, or it
    cannot be judged.

    ``energy`` and ``length`` are the units that the options say.
    """
    size = abs(found.factor)
    if not found.believed or (found.factor > 0 and 1 / AGREE < size < AGREE):
        return ""
    said = (
        f"energies change by {found.factor:.3g} times the work of the forces (seen in {found.pairs} pairs of "
        f"structures that are alike, {100 * found.explained:.0f} % of the changes are explained so): "
    )
    if found.factor < 0 and 1 / AGREE < size < AGREE:
        return (
            said + "the forces have the wrong sign; forces are minus the gradient, multiply by -1"
        )
    sign = "the forces have the wrong sign, and " if found.factor < 0 else ""
    named = named_factor(found.factor, found.error, energy, length)
    what = ", or ".join(named) or "their units do not belong together"
    return said + sign + what + "; say units in the options, or correct the file"


def forces_warning(
    store: StructureStore, name: str, unit: str, length_unit: str, most: int = 100
) -> str:
    """What is wrong with the forces of an energy, seen in about ``most`` pairs; empty where nothing is known to be."""
    if name not in store.labels or f"{name}:forces" not in store.labels:
        return ""
    of = near(work(store, name, pairs_of_alike(store, most)), length_unit)
    return misfit_of_forces(factor_of_forces(of), unit, length_unit)


def named_factor(factor: float, error: float, energy: str, length: str) -> Sequence[str]:
    """What explains that energies change by ``factor`` times the work of forces: phrases, the likeliest first.

    ``energy`` and ``length`` are the units that the options say (taken as eV and angstrom where they say none).
    """
    energy, length = energy or "eV", length or "angstrom"
    size, said = abs(factor), []
    for miss, what in sorted(_explanations(energy, length, size)):
        if miss <= max(0.04, min(2 * error, 0.1)):
            said.append(what)
    return list(dict.fromkeys(said))[:2]


def _explanations(energy: str, length: str, size: float) -> Iterator[tuple[float, str]]:
    """Single mistakes in units, with how far (logarithm) each is from explaining a factor."""

    def miss(predicted: float, unit: str = "") -> float:
        rare = 0.05 if unit == "rydberg" else 0.0  # close to others, and hardly used for data
        return abs(float(np.log(size / predicted))) + rare

    for other in ENERGIES:
        if abs(ratio := _ratio(other, energy)) == 1.0:
            continue
        # energies as declared, forces per length as declared but of another energy; and the other way round
        yield miss(ratio, other), f"forces are in {other}/{length}, energies in {energy}"
        yield miss(1 / ratio, other), f"energies are in {other}, forces in {energy}/{length}"
    for other in LENGTHS:
        scale = conversion(length, other)
        if scale == 1.0:
            continue
        for unit in ENERGIES:
            # positions in `length`, forces per `other`
            yield miss(_ratio(unit, energy) * scale, unit), f"forces are in {unit}/{other}"
            if unit != energy:
                both = f"energies are in {unit}, forces in {unit}/{other}, positions in {length}"
                yield miss(scale, unit) + 1e-6, both
        yield (
            miss(1 / scale),
            f"positions are in {other}, forces in {energy}/{length}",
        )


def _ratio(unit: str, other: str) -> float:
    def in_ev(name: str) -> float:
        return _EV[name] if name in _EV else conversion(name, "eV")

    return in_ev(unit) / in_ev(other)
