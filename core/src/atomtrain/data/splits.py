"""Which structures of a training section are for training, validation and test.

Structures given by their indices are those of the section's file, wherever they stand in it, and are
never trained on. Of the others, or of those that the section's own ``indices`` name, the test set takes
the first, validation the next, training the rest, after they were shuffled once by the seed of the
options and the section's number. A fraction is of the whole section and is rounded to the nearest number
of structures. The sets are disjoint, and the same options give the same sets on any machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from atomtrain.errors import OptionsError
from atomtrain.options import DatasetSection, IndicesSection, Options, read_indices


def split_section(
    options: Options, k: int, n: int, own: Sequence[int]
) -> dict[str, list[int] | None]:
    """Which frames go to each set: of training section ``k``, of whose file's ``n`` it has its ``own``.

    In the order of ``own``; those given by their indices ascending. None where a set is not taken from
    the training sections, but has sections of its own.
    """
    result: dict[str, list[int] | None] = {"validation": None, "test": None}
    taken: dict[int, str] = {}
    wanted: dict[str, int] = {}
    for name in ("test", "validation"):
        sections = options.test_set if name == "test" else options.validation_set
        if not sections or all(isinstance(section, DatasetSection) for section in sections):
            continue
        part = sections[k]
        where = options.source.where((f"{name}_set", k))
        if isinstance(part, (int, float)):
            count = part if isinstance(part, int) else round(part * len(own))
            if count == 0 and part != 0:
                raise OptionsError(
                    f"{where}: {part:g} of {len(own)} structures leaves nothing for the {name} set; "
                    "give a larger fraction, a number of structures, or 0 if there is to be none"
                )
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
    for name, count in wanted.items():
        result[name] = frames[np.sort(rest[:count])].tolist()
        rest = rest[count:]
    if not len(rest):
        raise OptionsError(
            f"{options.source.where(('training_set', k))}: validation and test take all {len(own)} "
            "structures, nothing is left to train on"
        )
    result["train"] = frames[np.sort(rest)].tolist()
    return result


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
