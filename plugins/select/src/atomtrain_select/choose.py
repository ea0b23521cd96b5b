"""The choice, from numbers alone.

Greedy: each choice is the structure with the largest score that still fits the budget of atoms. The score is its
uncertainty, its distance to the nearest of those that are known or chosen, or their product, which leaves out what the
model knows and what is chosen already. By distance alone it is farthest point sampling (Y. Eldar et al., doi
10.1109/83.623193), which covers a set to within twice the best.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

By = Literal["uncertainty", "distance", "both"]


class Choice(NamedTuple):
    """One structure that was chosen, and why."""

    structure: int
    uncertainty: float | None
    """per atom"""
    distance: float | None
    """in features, to the nearest that was known or chosen before; None for the first where nothing is known"""


class Pool(NamedTuple):
    """The structures to choose from."""

    sizes: np.ndarray
    """[n] numbers of atoms"""
    uncertainties: np.ndarray | None
    """[n] per atom"""
    features: np.ndarray | None
    """[n, n_features]"""


def choose(
    pool: Pool, by: By, n: int | None, budget: int | None, known: np.ndarray | None = None
) -> list[Choice]:
    """Up to ``n`` structures of at most ``budget`` atoms together, in the order of their choice.

    ``known [n_known, n_features]`` are features of what is labelled already. Choosing ends early where nothing is left
    that fits, or that differs from what is known and chosen.
    """
    chosen: list[Choice] = []
    left = budget if budget is not None else int(pool.sizes.sum())
    open_ = np.ones(len(pool.sizes), dtype=bool)
    distances = None
    if pool.features is not None and by != "uncertainty":
        distances = np.full(len(pool.sizes), np.inf)
        for row in known if known is not None else ():
            np.minimum(distances, _distances(pool.features, row), out=distances)
    while n is None or len(chosen) < n:
        open_ &= pool.sizes <= left
        if not open_.any():
            break
        k, score = _best(pool, by, distances, open_)
        if score <= 0.0:
            break
        uncertainty = None if pool.uncertainties is None else float(pool.uncertainties[k])
        distance = None
        if distances is not None and pool.features is not None:
            distance = float(distances[k]) if np.isfinite(distances[k]) else None
            np.minimum(distances, _distances(pool.features, pool.features[k]), out=distances)
        chosen.append(Choice(k, uncertainty, distance))
        open_[k] = False
        left -= int(pool.sizes[k])
    return chosen


def _best(pool: Pool, by: By, distances: np.ndarray | None, open_: np.ndarray) -> tuple[int, float]:
    """The structure of largest score among those that are ``open_``, and the score."""
    if distances is not None and pool.features is not None and not np.isfinite(distances).all():
        # nothing is known yet: the most uncertain, or the most usual
        usual = -_distances(pool.features, pool.features.mean(0))
        first = usual if by == "distance" or pool.uncertainties is None else pool.uncertainties
        return int(np.where(open_, first, -np.inf).argmax()), 1.0
    scores = np.ones(len(open_))
    if by != "distance" and pool.uncertainties is not None:
        scores = scores * pool.uncertainties
    if distances is not None:
        scores = scores * distances
    scores = np.where(open_, scores, -np.inf)
    k = int(scores.argmax())
    return k, float(scores[k])


def _distances(features: np.ndarray, row: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.linalg.norm(features - row, axis=1)
    return found
