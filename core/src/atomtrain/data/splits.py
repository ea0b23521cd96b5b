"""Which structures of a training section are for training, validation and test.

Every section is shuffled once by the seed of the options and its own number. The test set takes the
first of the shuffled structures, validation the next, training the rest; structures given by their
indices are taken out beforehand. A fraction is of the whole section and is rounded to the nearest
number of structures. The sets are disjoint, and the same options give the same sets on any machine.
"""

from __future__ import annotations

import numpy as np

from atomtrain.errors import OptionsError
from atomtrain.options import DatasetSection, IndicesSection, Options, read_indices


def split_section(options: Options, k: int, n: int) -> dict[str, list[int] | None]:
    """Which of the ``n`` structures of training section ``k`` go to each set, ascending.

    None where a set is not taken from the training sections, but has sections of its own.
    """
    free = np.random.default_rng([options.seed, k]).permutation(n)
    result: dict[str, list[int] | None] = {"validation": None, "test": None}
    taken: set[int] = set()
    wanted: dict[str, int] = {}
    for name in ("test", "validation"):
        sections = options.test_set if name == "test" else options.validation_set
        if not sections or any(isinstance(section, DatasetSection) for section in sections):
            continue
        part = sections[k]
        where = options.source.where((f"{name}_set", k))
        if isinstance(part, (int, float)):
            count = part if isinstance(part, int) else round(part * n)
            if count == 0 and (name == "validation" or part != 0):
                raise OptionsError(
                    f"{where}: {part:g} of {n} structures leaves nothing for the {name} set; "
                    "give a larger fraction or a number of structures"
                )
            if count > n:
                raise OptionsError(f"{where}: {count} asked for, there are {n} structures")
            wanted[name] = count
        elif isinstance(part, IndicesSection):
            indices = chosen_indices(part.indices, n, where)
            both = taken.intersection(indices)
            if both:
                raise OptionsError(
                    f"{where}: structure {min(both)} is in the validation set and in the test set"
                )
            taken.update(indices)
            result[name] = sorted(indices)
    rest = [int(i) for i in free if int(i) not in taken]
    for name, count in wanted.items():
        result[name] = sorted(rest[:count])
        rest = rest[count:]
    if not rest:
        raise OptionsError(
            f"{options.source.where(('training_set', k))}: validation and test take all {n} "
            "structures, nothing is left to train on"
        )
    result["train"] = sorted(rest)
    return result


def chosen_indices(given: list[int] | str, n: int, where: str) -> list[int]:
    """Indices in the options or in a file; OptionsError unless they are some of 0 to n - 1, each once."""
    indices = read_indices(where, given)
    bad = [k for k in indices if not 0 <= k < n]
    if bad:
        raise OptionsError(f"{where}: there is no structure {bad[0]} (they are 0 to {n - 1})")
    if len(set(indices)) != len(indices):
        raise OptionsError(f"{where}: some indices are given twice")
    if not indices:
        raise OptionsError(f"{where}: the list of indices is empty")
    return indices
