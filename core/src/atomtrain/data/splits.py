"""Which structures of a training section are for training, validation and test.

Structures given by their indices are those of the section's file, wherever they stand in it, and are
never trained on. Of the others, or of those that the section's own ``indices`` name, the test set takes
the first, validation the next, training the rest, after they were shuffled once by the seed of the
options and the section's number. A fraction is of the whole section and is rounded to the nearest number
of structures, or of what stays together (``by``). The sets are disjoint, and the same options give the same sets on any
machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from atomtrain.errors import OptionsError
from atomtrain.options import DatasetSection, IndicesSection, Options, SplitSection, read_indices
from atomtrain.options.options import PartOf

BLOCKS = 20
"""stretches that a section is cut into, for splits by block"""
Together = Callable[[SplitSection, np.ndarray, str], np.ndarray]
"""Given a split, frames and where the options have it: which of the frames stay together, a number for each."""


def split_section(
    options: Options, k: int, n: int, own: Sequence[int], together: Together
) -> dict[str, list[int] | None]:
    """Which frames go to each set: of training section ``k``, of whose file's ``n`` it has its ``own``.

    In the order of ``own``; those given by their indices ascending. None where a set is not taken from
    the training sections, but has sections of its own. ``together`` answers for what the structures are.
    """
    result: dict[str, list[int] | None] = {"validation": None, "test": None}
    taken: dict[int, str] = {}
    wanted: dict[str, int | SplitSection] = {}
    for name in ("test", "validation"):
        sections = options.test_set if name == "test" else options.validation_set
        if not sections or all(isinstance(section, DatasetSection) for section in sections):
            continue
        part = _plain(sections[k])
        where = options.source.where((f"{name}_set", k))
        if isinstance(part, SplitSection):
            wanted[name] = part
        elif isinstance(part, (int, float)):
            count = part if isinstance(part, int) else _count(part, len(own), where, name)
            if count > len(own):
                raise OptionsError(f"{where}: {count} asked for, there are {len(own)} structures")
            wanted[name] = count
        elif isinstance(part, IndicesSection):
            # a run writes an empty file of indices for an empty set
            indices = chosen_indices(part.indices, n, where, none=True)
            both = sorted(taken.keys() & indices)
            if both:
                raise OptionsError(
                    f"{where}: structure {both[0]} is in the {name} set and in the {taken[both[0]]} set"
                )
            if options.training_set[k].indices is not None:
                _not_trained_on(indices, own, where, name)
            taken |= dict.fromkeys(indices, name)
            result[name] = sorted(indices)
    frames = np.asarray(own, dtype=np.int64)
    rest = np.random.default_rng([options.seed, k]).permutation(len(frames))
    rest = rest[~np.isin(frames[rest], np.array(list(taken), dtype=np.int64))]
    for name, part in wanted.items():
        if isinstance(part, SplitSection):
            where = options.source.where((f"{name}_set", k))
            labels = together(part, frames, where)
            chosen = _whole_groups(labels[rest], round(part.fraction * len(own)), where)
            picked, rest = rest[chosen], rest[~chosen]
            rest = rest[~_within(frames[rest], frames[picked], part.gap)]
        else:
            picked, rest = rest[:part], rest[part:]
        result[name] = frames[np.sort(picked)].tolist()
    if not len(rest):
        gaps = any(isinstance(part, SplitSection) and part.gap for part in wanted.values())
        raise OptionsError(
            f"{options.source.where(('training_set', k))}: validation and test take all {len(own)} structures"
            f"{' with the gap around their blocks' if gaps else ''}, nothing is left to train on"
        )
    result["train"] = frames[np.sort(rest)].tolist()
    return result


def _plain(part: PartOf) -> PartOf:
    """A split that keeps nothing together as the fraction that it is."""
    return part.fraction if isinstance(part, SplitSection) and part.by == "random" else part


def _count(fraction: float, n: int, where: str, name: str) -> int:
    """How many structures a fraction of ``n`` is. OptionsError where it is none."""
    count = round(fraction * n)
    if count == 0 and fraction != 0:
        raise OptionsError(
            f"{where}: {fraction:g} of {n} structures leaves nothing for the {name} set; "
            "give a larger fraction, a number of structures, or 0 if there is to be none"
        )
    return count


def _whole_groups(labels: np.ndarray, count: int, where: str) -> np.ndarray:
    """Which of some structures ``[n]`` are taken, of each group all or none: about ``count``.

    Groups are taken in the order in which they come first in ``labels``, as far as that brings their number closer; the
    smallest, if all are too large.
    """
    names, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    if len(names) < 2:
        raise OptionsError(
            f"{where}: all {len(labels)} structures belong together, so none can be taken apart from the others; "
            "split by something else"
        )
    taken: list[int] = []
    total = 0
    for k in np.argsort(first).tolist():
        if abs(total + sizes[k] - count) < abs(total - count):
            taken.append(k)
            total += int(sizes[k])
    taken = taken[: len(names) - 1] or [int(sizes.argmin())]
    return np.isin(labels, names[taken])


def _within(frames: np.ndarray, picked: np.ndarray, gap: int) -> np.ndarray:
    """Which of some ``frames`` are at most ``gap`` from one that was picked."""
    ordered = np.sort(picked)
    places = np.searchsorted(ordered, frames)
    before = frames - ordered[np.maximum(places - 1, 0)]
    after = ordered[np.minimum(places, len(ordered) - 1)] - frames
    return ((before >= 0) & (before <= gap)) | ((after >= 0) & (after <= gap))


def stretches(files: np.ndarray, fraction: float) -> np.ndarray:
    """A number for each of some frames ``[n]`` that are in these ``files``, in order: that of its block.

    Blocks are of about one length, a twentieth or less where the fraction is smaller, and none is in two files.
    """
    n = len(files)
    length = max(1, round(min(1 / BLOCKS, fraction) * n))
    found = np.zeros(n, dtype=np.int64)
    blocks = 0
    for part in np.split(np.arange(n), 1 + np.flatnonzero(np.diff(files))):
        count = max(1, round(len(part) / length))
        found[part] = blocks + np.arange(len(part)) * count // max(len(part), 1)
        blocks += count
    return found


def _not_trained_on(indices: Sequence[int], own: Sequence[int], where: str, name: str) -> None:
    """Raise OptionsError where training names a structure that ``name`` names as well."""
    both = sorted(set(own).intersection(indices))
    if both:
        raise OptionsError(
            f"{where}: structures {ranges(both)} of the file are in the {name} set and in "
            "training_set.indices (both count in the file); take them out of one"
        )


def chosen_indices(given: list[int] | str, n: int, where: str, none: bool = False) -> list[int]:
    """Indices in the options or in a file; OptionsError unless they are some of 0 to n - 1, each once.

    ``none``: there need not be any.
    """
    indices = read_indices(where, given)
    bad = [k for k in indices if not 0 <= k < n]
    if bad:
        raise OptionsError(f"{where}: there is no structure {bad[0]} (they are 0 to {n - 1})")
    if len(set(indices)) != len(indices):
        raise OptionsError(f"{where}: some indices are given twice")
    if not indices and not none:
        raise OptionsError(f"{where}: the list of indices is empty")
    return indices


def ranges(numbers: Iterable[int], most: int = 6) -> str:
    """``0 to 4, 7, 9``: numbers for people to read, the first of them where there are too many."""
    ordered = np.sort(np.fromiter(numbers, dtype=np.int64))
    ends = 1 + np.flatnonzero(np.diff(ordered) != 1)
    runs = [ordered[i:j] for i, j in pairwise([0, *ends[:most].tolist(), len(ordered)])]
    said = ", ".join(
        f"{r[0]} to {r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs[:most]
    )
    return said if len(ends) < most else f"{said}, ... {ordered[-1]}"
