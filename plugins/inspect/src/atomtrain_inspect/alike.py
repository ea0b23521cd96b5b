"""Structures that are there twice, or nearly; in two sets; close in time; out of their place or order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from atomtrain.data import StructureStore
from atomtrain.data.consistency import ONWARD, positions, step, whole_cell
from atomtrain_inspect.finding import Finding
from atomtrain_inspect.sets import Looked

NEARLY = 0.03
"""root mean square displacement (angstrom) below which two structures are nearly the same"""
JUMP = 3.0
"""a frame is out of place if it moved so many times farther than frames usually do, and the next one back"""
MOST_ASSIGNED = 400
"""atoms of structures in which it is tried which is which"""


# -- the same, or nearly ---------------------------------------------------------------------------


def copies(looked: Looked) -> Iterator[Finding]:
    """Structures that are there before to the last bit: in the same set, and in two."""
    first: dict[bytes, int] = {}
    again: list[tuple[int, int]] = []
    leaks: list[tuple[int, int]] = []
    for k, key in enumerate(looked.store.fingerprints):
        one = first.setdefault(key, k)
        if one == k:
            continue
        (again if looked.member[one] == looked.member[k] else leaks).append((k, one))
    if again:
        yield looked.finding(
            "duplicates",
            "warning",
            [k for k, _ in again],
            "are there before, atom by atom",
            "copies count as often as they are there, and a random split puts them on both sides: leave them out",
            [f"the same as {looked.named(one)}" for _, one in again],
        )
    if leaks:
        yield _leak(looked, leaks, "atom by atom", exactly=True)


def _leak(looked: Looked, pairs: list[tuple[int, int]], how: str, exactly: bool) -> Finding:
    """Pairs of structures that are in two sets."""
    ordered = [sorted(pair, key=lambda k: -looked.member[k]) for pair in pairs]
    sets = {(looked.sets[looked.member[k]], looked.sets[looked.member[j]]) for k, j in ordered}
    where = ", ".join(f"{one} and {other}" for one, other in sorted(sets)[:3])
    return looked.finding(
        "leak" if exactly else "near-leak",
        ("serious" if exactly else "warning") if looked.options else "note",
        [k for k, _ in ordered],
        f"are {how} in two sets ({where})" if looked.options else f"are {how} in two of the files",
        "errors on them are not those on new structures: take them out of one, or split by groups or blocks",
        [f"the same as {looked.named(j)}" for _, j in ordered]
        if exactly
        else [f"nearly {looked.named(j)}" for _, j in ordered],
    )


def near_copies(looked: Looked, features: np.ndarray) -> Iterator[Finding]:
    """Structures that are nearly others, whatever the order of atoms: in the same set, and in two."""
    inside: list[tuple[int, int, float]] = []
    between: list[tuple[int, int, float]] = []
    seen: set[int] = set()
    for k, other, size in nearly(looked, features):
        if k in seen:
            continue
        seen.add(k)
        same = looked.member[k] == looked.member[other]
        (inside if same else between).append((k, other, size))
    if inside:
        yield looked.finding(
            "near-duplicates",
            "note",
            [k for k, _, _ in inside],
            f"are nearly as others (moved by less than {NEARLY} A)",
            "they add little, and a random split puts them on both sides: thin them out, or split by groups or blocks",
            [f"{looked.named(other)}, {size:.1g} A" for _, other, size in inside],
        )
    if between:
        pairs = [(k, other) for k, other, _ in between]
        yield _leak(looked, pairs, f"nearly (moved by less than {NEARLY} A)", exactly=False)


def nearly(looked: Looked, features: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Of structures that are nearly others: one, the other, and how far atoms moved (angstrom), each once."""
    prints = looked.store.fingerprints
    seen: set[tuple[int, int]] = set()
    for one in np.unique(looked.composition).tolist():
        rows = np.flatnonzero(looked.composition == one)
        if len(rows) < 2:
            continue
        some = features[rows]
        apart, others = cKDTree(some).query(some, k=min(4, len(rows)), workers=1)
        limit = 0.2 * np.linalg.norm(some - some.mean(0), axis=1).mean() + 1e-9
        if len(rows) < 10:
            limit = 0.1 * float(np.linalg.norm(some, axis=1).mean())
        for k in range(len(rows)):
            for distance, other in zip(apart[k, 1:], others[k, 1:], strict=True):
                a, b = sorted((int(rows[k]), int(rows[int(other)])))
                if distance > limit or a == b or (a, b) in seen or prints[a] == prints[b]:
                    continue
                seen.add((a, b))
                size = displacement(looked, a, b)
                if size < NEARLY:
                    yield b, a, size
                    break


def displacement(looked: Looked, a: int, b: int) -> float:
    """How far atoms moved between two structures of one composition (root mean square, in angstrom), and the cell with
    them; infinite where it cannot be told which atom is which."""
    store = looked.store
    order = None if looked.kind[a] == looked.kind[b] else assigned(store, a, b)
    if order is None and looked.kind[a] != looked.kind[b]:
        return np.inf
    found = step(store, a, b, order)
    strained = 3.0 * float(
        np.abs(found.strain).max()
    )  # what it does to distances of a few angstrom
    size = max(found.size * looked.angstrom, strained)
    if order is None and size > 0.3 and len(positions(store, a)) <= MOST_ASSIGNED:
        order = assigned(store, a, b)  # the same elements in order, yet other atoms
        if order is not None:
            size = min(size, max(step(store, a, b, order).size * looked.angstrom, strained))
    return size


def assigned(store: StructureStore, a: int, b: int) -> np.ndarray | None:
    """Which atom of ``b`` is each of ``a`` [n], by where they are; None: not to be told."""
    bounds = store.offsets.tolist()
    n = bounds[a + 1] - bounds[a]
    if n > MOST_ASSIGNED or bounds[b + 1] - bounds[b] != n:
        return None
    first, second = (store.types.numpy()[bounds[k] : bounds[k + 1]] for k in (a, b))
    r, s = positions(store, a), positions(store, b)
    pbc = store.pbc[a].numpy()
    if pbc.any():
        h = whole_cell(store.cells[a].numpy(), pbc)
        inverse = np.linalg.inv(h)
        vectors = (
            s @ np.linalg.inv(whole_cell(store.cells[b].numpy(), pbc)) - (r @ inverse)[:, None, :]
        )
        vectors -= np.where(pbc, np.round(vectors), 0.0)
        cost = ((vectors @ h) ** 2).sum(2)
    else:
        cost = (((s - s.mean(0)) - (r - r.mean(0))[:, None, :]) ** 2).sum(2)
    cost = cost + 1e6 * (first[:, None] != second[None, :])
    rows, columns = linear_sum_assignment(cost)
    if cost[rows, columns].max() >= 1e6:
        return None
    order: np.ndarray = columns[np.argsort(rows)]
    return order


# -- one after the other ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Trajectory:
    """Frames of a file that follow one another closely: rows of the store in order, and how far atoms moved from each
    to the next (angstrom)."""

    rows: np.ndarray
    moved: np.ndarray
    file: str

    @property
    def usual(self) -> float:
        """What atoms usually move."""
        return float(np.median(self.moved))


def trajectories(looked: Looked) -> Iterator[Trajectory]:
    """Stretches of at least ten frames of one composition that know of one another.

    There two steps lead farther than either of them; independent structures are as far from the next as from the one
    after it, whatever they are sorted by.
    """
    files, _ = looked.order
    joined = (np.diff(files) == 0) & (np.diff(looked.composition) == 0)
    for rows in np.split(np.arange(len(files)), 1 + np.flatnonzero(~joined)):
        if len(rows) < 10:
            continue
        moved = np.array([_moved(looked, rows, k) for k in range(len(rows) - 1)])
        onward = np.full(len(rows) - 2, np.nan)
        for k in np.flatnonzero(np.isfinite(moved[1:] + moved[:-1])).tolist():
            there = _far(looked, rows, k, 2)
            if there < np.inf:
                onward[k] = there > ONWARD * max(moved[k], moved[k + 1], 1e-4)
        for first, last in _mostly(onward):
            here = slice(first, last + 2)
            file, _ = looked.place(int(rows[first]))
            some = moved[here]
            usual = float(np.nanmedian(some))
            if usual < 0.6:
                whole = np.where(np.isfinite(some), some, usual)
                yield Trajectory(rows[first : last + 3], whole, file)


def _mostly(true: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last of the stretches in which an array (1, 0, or nan for not known) is true more often than not."""
    known, ones = np.isfinite(true), np.nan_to_num(true)
    window = np.ones(min(15, len(true)))
    counts = np.convolve(known, window, "same")
    often = np.convolve(ones, window, "same") > 0.6 * np.maximum(counts, 1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], often.astype(int), [0]])))
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        there = first + np.flatnonzero(ones[first:stop] > 0)
        if len(there) >= 8:
            yield int(there[0]), int(there[-1])


def _moved(looked: Looked, rows: np.ndarray, k: int) -> float:
    """How far atoms moved from one of the rows to the next, whichever is which."""
    i, j = int(rows[k]), int(rows[k + 1])
    if looked.order[1][j] - looked.order[1][i] != 1:  # of a sample
        return np.nan
    order = None if looked.kind[i] == looked.kind[j] else assigned(looked.store, i, j)
    if order is None and looked.kind[i] != looked.kind[j]:
        return np.nan
    return step(looked.store, i, j, order).size * looked.angstrom


def close_in_time(looked: Looked, run: Trajectory) -> tuple[Finding | None, int]:
    """Whether a random split of a trajectory leaks, and how many frames on its frames are apart."""
    rows = run.rows

    def far(lag: int) -> float:
        starts = np.unique(np.linspace(0, len(rows) - lag - 1, 60).astype(int))
        sizes = [_far(looked, rows, k, lag) for k in starts.tolist()]
        return float(np.nanmedian(sizes)) if np.isfinite(sizes).sum() >= 5 else np.nan

    lag = 2
    while 4 * lag < len(rows) and far(2 * lag) > 1.15 * far(lag):
        lag *= 2
    leaks = looked.options and len(set(looked.member[rows].tolist())) > 1
    text = (
        f"frames {looked.place(int(rows[0]))[1]} to {looked.place(int(rows[-1]))[1]} of '{run.file}' follow one "
        f"another closely: atoms move by {run.usual:.2g} A from one to the next, by {far(lag):.2g} A within {lag}"
    )
    if leaks:
        held = looked.member[rows] != 0
        frames = looked.order[1][rows]  # those in no set lie between
        train = frames[~held]
        near = [abs(train - frame).min() <= lag for frame in frames[held]] if len(train) else []
        if near and np.mean(near) > 0.2:
            text += (
                f"; {sum(near)} of {len(near)} validation and test structures of it are within {lag} frames of a "
                "training structure: their errors are those of an interpolation; split by blocks"
            )
            return Finding(
                "trajectory-split", "warning", text, [looked.place(int(k)) for k in rows[held]]
            ), lag
        return None, lag
    advice = (
        "; a random split puts neighbours on both sides: split by blocks, or take every few frames"
    )
    return Finding("trajectory", "note", text + advice), lag


def _far(looked: Looked, rows: np.ndarray, k: int, lag: int) -> float:
    """How far atoms moved (angstrom) from one of the ``rows`` to a later one; nan where frames of a sample lie between,
    or atoms are in another order."""
    i, j = int(rows[k]), int(rows[k + lag])
    if looked.kind[i] != looked.kind[j] or looked.order[1][j] - looked.order[1][i] != lag:
        return np.nan
    return step(looked.store, i, j).size * looked.angstrom


def out_of_place(looked: Looked, run: Trajectory) -> Iterator[Finding]:
    """Frames that jump there and back: their atoms are in another order, or they stand at another frame's place."""
    store, rows, limit = looked.store, run.rows, max(JUMP * run.usual, 0.05)
    jumps, reordered = [], []
    for k in range(1, len(rows) - 1):
        before, here, after = (int(row) for row in rows[k - 1 : k + 2])
        other = (
            looked.kind[here] != looked.kind[before] and looked.kind[before] == looked.kind[after]
        )
        jump = run.moved[k - 1] > limit and run.moved[k] > limit
        if not (other or jump) or looked.kind[before] != looked.kind[after]:
            continue
        back = step(store, before, after).size * looked.angstrom
        if back > (0.75 * min(run.moved[k - 1], run.moved[k]) if jump else 3 * run.usual + 0.04):
            continue
        order = assigned(store, before, here)
        changed = order is not None and not np.array_equal(order, np.arange(len(order)))
        if changed and step(store, before, here, order).size * looked.angstrom < limit:
            assert order is not None
            atoms = int((order != np.arange(len(order))).sum())
            reordered.append((here, f"{atoms} atoms elsewhere"))
        elif jump:
            jumps.append(here)
    if reordered:
        yield looked.finding(
            "shuffled-atoms",
            "warning",
            [k for k, _ in reordered],
            "have their atoms in another order than the frames before and after",
            "make sure that forces were reordered with them; if these do not belong to the energies either, leave the "
            "structures out",
            [what for _, what in reordered],
        )
    if jumps:
        places = []
        for k in jumps:
            own = [other for other in jumps if other != k and _fits(looked, run, k, other, limit)]
            places.append(f"at home at {looked.named(own[0])}" if own else "at home nowhere near")
        yield looked.finding(
            "swapped-frames",
            "warning",
            jumps,
            "are not where their trajectory would have them",
            "splits by blocks, and what is computed along the trajectory, go wrong; put frames in their order",
            places,
        )


def _fits(looked: Looked, run: Trajectory, frame: int, place: int, limit: float) -> bool:
    """Whether a frame lies between the neighbours of another one."""
    k = int(np.flatnonzero(run.rows == place)[0])
    others = [int(run.rows[j]) for j in (k - 1, k + 1) if run.rows[j] != frame]
    return bool(others) and all(
        looked.kind[frame] == looked.kind[other]
        and step(looked.store, frame, other).size * looked.angstrom < limit
        for other in others
    )
