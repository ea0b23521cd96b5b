"""Which structures make a batch. Pure functions of seed and epoch, so that restarts are exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Limits:
    """Which batches are made and used.

    Without ``max_atoms`` every batch has as many structures; ``drop_last`` leaves out a smaller last
    one (unless it is the only one), ``bounds`` (minimum, maximum of atoms) leave out batches outside.
    With ``max_atoms`` structures are packed greedily up to that many atoms; larger ones are skipped
    (without ``skip_large`` they are batches of their own), batches below ``min_atoms`` are dropped.
    """

    max_atoms: int | None = None
    min_atoms: int = 0
    bounds: Sequence[int | None] = (None, None)
    skip_large: bool = True
    drop_last: bool = False


@dataclass(frozen=True)
class Blocks:
    """How a set is shuffled that is not in memory: ``at_once`` blocks of ``size`` structures that lie together."""

    size: int
    at_once: int

    @property
    def window(self) -> int:
        """Structures that are in memory together."""
        return self.size * self.at_once


def epoch_batches(
    n_atoms: Tensor,
    batch_size: int,
    *,
    shuffled: tuple[int, ...] | None = None,
    blocks: Blocks | None = None,
    limits: Limits = Limits(),
) -> list[Tensor]:
    """Indices of the structures of each batch of an epoch.

    ``n_atoms [n_structures]``; ``shuffled`` by seed and epoch, or in their order; by ``blocks``, if given.
    """
    n = len(n_atoms)
    if shuffled is None:
        order = np.arange(n)
    elif blocks is None:
        order = np.random.default_rng(shuffled).permutation(n)
    else:
        order = _by_blocks(n, np.random.default_rng(shuffled), blocks)
    sizes = n_atoms.numpy()
    low, high = limits.bounds
    if limits.max_atoms is not None:
        batches = _packed(order, sizes, limits.max_atoms, limits.skip_large)
        low, high = limits.min_atoms, None
    else:
        batches = [order[k : k + batch_size] for k in range(0, n, batch_size)]
        if limits.drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
            batches.pop()
    return [
        torch.from_numpy(b)
        for b in batches
        if (low is None or sizes[b].sum() >= low) and (high is None or sizes[b].sum() <= high)
    ]


def replay_batches(
    n_atoms: Tensor,
    batch_size: int,
    old: Tensor,
    share: float,
    *,
    shuffled: tuple[int, int],
    limits: Limits,
) -> list[Tensor]:
    """Batches in which a ``share`` is ``old [n_structures]`` (bool), and the others go through what is new once.

    The share is one of structures, or of atoms where ``limits`` say how many a batch has. Old structures are drawn
    anew each epoch, none twice before all others. Raises ValueError where no old structure fits in.
    """
    seed, epoch = shuffled
    n_old = round(share * batch_size)
    most = limits.max_atoms
    most_old = None if most is None else int(share * most)
    most_new = None if most is None or most_old is None else most - most_old
    (new,), (kept,) = (~old).nonzero(as_tuple=True), old.nonzero(as_tuple=True)
    limits_old = replace(limits, max_atoms=most_old, drop_last=True)
    limits_new = replace(limits, max_atoms=most_new)
    news = epoch_batches(
        n_atoms[new], batch_size - n_old, shuffled=(seed, epoch), limits=limits_new
    )
    olds: list[Tensor] = []
    turn = 0
    while len(olds) < len(news):
        # a seed that no epoch of new ones has
        more = epoch_batches(
            n_atoms[kept], n_old, shuffled=(seed, epoch, turn + 1), limits=limits_old
        )
        if not more:
            raise ValueError("no old structure fits into its share of a batch")
        olds += more
        turn += 1
    return [torch.cat([new[a], kept[b]]) for a, b in zip(news, olds, strict=False)]


def _by_blocks(n: int, rng: np.random.Generator, blocks: Blocks) -> np.ndarray:
    """An order in which ``blocks.at_once`` blocks are gone through together, one structure of each in turn.

    Blocks and what is in them come at random. Of consecutive structures each R-th then is of the same part of
    the blocks, so that of R processes each reads its own, whatever R is that divides the batch and ``at_once``.
    """
    starts = rng.permutation(np.arange(0, n, blocks.size))
    parts = []
    for k in range(0, len(starts), blocks.at_once):
        together = [
            start + rng.permutation(min(blocks.size, n - start))
            for start in starts[k : k + blocks.at_once].tolist()
        ]
        turn = np.concatenate([np.arange(len(block)) for block in together])
        parts.append(np.concatenate(together)[np.argsort(turn, kind="stable")])
    return np.concatenate(parts) if parts else np.arange(0)


def _packed(
    order: np.ndarray, sizes: np.ndarray, max_atoms: int, skip_large: bool
) -> list[np.ndarray]:
    batches: list[list[int]] = [[]]
    filled = 0
    for k in order:
        if skip_large and sizes[k] > max_atoms:
            continue
        if filled + sizes[k] > max_atoms:
            batches.append([])
            filled = 0
        batches[-1].append(int(k))
        filled += int(sizes[k])
    return [np.array(b, dtype=np.int64) for b in batches if b]
