"""Which structures make a batch. Pure functions of seed and epoch, so that restarts are exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def epoch_batches(
    n_atoms: Tensor,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    shuffle: bool,
    drop_last: bool = False,
    skip_large: bool = True,
    max_atoms: int | None = None,
    min_atoms: int = 0,
    bounds: Sequence[int | None] = (None, None),
) -> list[Tensor]:
    """Indices of the structures of each batch of an epoch.

    ``n_atoms [n_structures]``. Without ``max_atoms`` every batch has ``batch_size`` structures;
    ``drop_last`` leaves out a smaller last one (unless it is the only one), ``bounds`` (minimum,
    maximum of atoms) leave out batches outside. With ``max_atoms`` structures are packed greedily
    up to that many atoms; larger ones are skipped (without ``skip_large`` they are batches of their
    own), batches below ``min_atoms`` are dropped.
    """
    n = len(n_atoms)
    if shuffle:
        order = np.random.default_rng([seed, epoch]).permutation(n)
    else:
        order = np.arange(n)
    sizes = n_atoms.numpy()
    if max_atoms is not None:
        return [
            torch.from_numpy(b)
            for b in _packed(order, sizes, max_atoms, skip_large)
            if sizes[b].sum() >= min_atoms
        ]
    batches = [order[k : k + batch_size] for k in range(0, n, batch_size)]
    if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    low, high = bounds
    return [
        torch.from_numpy(b)
        for b in batches
        if (low is None or sizes[b].sum() >= low) and (high is None or sizes[b].sum() <= high)
    ]


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
