"""PairFunctions grouped by center and neighbour element, laid out for batched products.

Pair vectors are laid out ``[n_groups, width]`` before anything is computed of them. Places without
a pair hold a vector beyond the cutoff: radial functions and their derivatives are zero there, so
nothing has to be masked.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Dict, List, NamedTuple

import numpy as np
import torch
from torch import Tensor

from atomtrain.graph import AtomGraph


class Groups(NamedTuple):
    """Where each pair goes in the padded layout: bins of groups, ``[size, width]`` each.

    A group holds the neighbours of one element around one atom; those without any are left out.
    Where groups differ much in size the small ones have a bin of their own, less wide.
    """

    slots: Tensor
    """[n_pairs] place of a pair, bin after bin"""
    present: Tensor
    """[n_groups] which group of all, ``atom * n_species + s``"""
    sizes: List[int]
    """how many groups each bin has"""
    widths: List[int]
    n_places: int
    n_atoms: int


class PairFunctions(NamedTuple):
    """PairFunctions of atoms, one by one, with functions of their vectors."""

    centers: Tensor
    """[n_pairs]"""
    neighbors: Tensor
    """[n_pairs]"""
    harmonics: Tensor
    """[n_pairs, K]"""
    radial: Tensor
    """[n_pairs, n_radial]"""


def group_of(centers: Tensor, neighbors: Tensor, species: Tensor, n_species: int) -> Tensor:
    """The group of each pair, ``[n_pairs]``: ``atom * n_species + s`` for ``species [n_atoms]`` from 0."""
    return centers * n_species + species.index_select(0, neighbors)


def group_pairs(group: Tensor, n_atoms: int) -> Groups:
    """Lay out pairs of these groups, ``[n_pairs]`` (:func:`group_of`)."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        groups = _group_pairs(group, n_atoms)
    elif group.device.type == "cpu":
        groups = _group_pairs_numpy(group, n_atoms)
    else:
        groups = _group_pairs(group, n_atoms)
    return groups


def groups_of(graph: AtomGraph, species: Tensor, n_species: int) -> Groups:
    """The layout of the pairs of a batch, for which nobody waits where the batch brings it (:func:`kept_groups`)."""
    kept = graph.extras
    n_atoms = species.shape[0]
    if "host/groups" not in kept:
        return group_pairs(group_of(graph.centers, graph.neighbors, species, n_species), n_atoms)
    numbers: List[int] = kept["host/groups"].tolist()
    n_bins = len(numbers) // 2
    sizes, widths = numbers[:n_bins], numbers[n_bins:]
    n_places = 0
    for k in range(n_bins):
        n_places += sizes[k] * widths[k]
    return Groups(kept["pairs/slots"], kept["pairs/present"], sizes, widths, n_places, n_atoms)


def kept_groups(groups: Groups) -> Dict[str, Tensor]:
    """What a batch brings of the layout of its pairs (:meth:`atomtrain.model.Model.layout`)."""
    return {
        "pairs/slots": groups.slots,
        "pairs/present": groups.present,
        "host/groups": torch.tensor(groups.sizes + groups.widths),
    }


def _group_pairs(group: Tensor, n_atoms: int) -> Groups:
    group, order = torch.sort(group, stable=True)
    present, which, counts = torch.unique_consecutive(
        group, return_inverse=True, return_counts=True
    )
    n_groups = present.shape[0]
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(group.shape[0], device=group.device) - starts.index_select(0, which)
    widest = int(counts.max()) if n_groups > 0 else 1
    large, width = n_groups, widest
    if _in_two(n_groups * widest, group.shape[0]):
        counts, by_size = torch.sort(counts, descending=True, stable=True)
        k = torch.arange(n_groups, device=group.device)
        split = torch.argmin(k * widest + (n_groups - k) * counts)
        large, width = int(split), int(counts[split])
        first = torch.where(k < large, k * widest, large * (widest - width) + k * width)
        first = torch.empty_like(first).index_copy(0, by_size, first)
        present = present.index_select(0, by_size)
    else:
        first = torch.arange(n_groups, device=group.device) * widest
    slots = first.index_select(0, which) + rank
    slots = torch.empty_like(slots).index_copy(0, order, slots)
    return _groups(slots, present, large, widest, width, n_atoms)


def _group_pairs_numpy(group: Tensor, n_atoms: int) -> Groups:
    """The same. With few pairs calls take the time, and numpy's take half that of torch's."""
    g = group.numpy()
    ascending = not (g[1:] < g[:-1]).any()
    order = np.arange(len(g))
    if not ascending:  # 16 bits are sorted by counting, several times quicker
        order = np.argsort(g.astype(np.uint16) if g.max() < 2**16 else g, kind="stable")
        g = g[order]
    starts = np.flatnonzero(np.concatenate([[len(g) > 0], g[1:] != g[:-1]]))
    counts = np.diff(starts, append=len(g))
    present, n_groups = g[starts], len(starts)
    widest = int(counts.max()) if n_groups > 0 else 1
    large, width = n_groups, widest
    k = np.arange(n_groups)
    if _in_two(n_groups * widest, len(g)):
        by_size = np.argsort(-counts, kind="stable")
        sizes = counts[by_size]
        split = np.argmin(k * widest + (n_groups - k) * sizes)
        large, width = int(split), int(sizes[split])
        first = np.empty_like(k)
        first[by_size] = np.where(k < large, k * widest, large * (widest - width) + k * width)
        present = present[by_size]
    else:
        first = k * widest
    slots = np.empty_like(g)
    slots[order] = np.repeat(first - starts, counts) + np.arange(len(g))
    return _groups(
        torch.from_numpy(slots), torch.from_numpy(present), large, widest, width, n_atoms
    )


def _in_two(n_places: int, n_pairs: int) -> bool:
    """Whether small groups get a bin of their own: fewer places must be worth more operations."""
    n_empty = n_places - n_pairs
    return n_empty >= 500 and 5 * n_empty >= n_pairs


def _groups(
    slots: Tensor, present: Tensor, n_large: int, widest: int, width: int, n_atoms: int
) -> Groups:
    """The largest ``n_large`` groups in the first bin, the others in the second, if there are any."""
    n_small = present.shape[0] - n_large
    n_places = n_large * widest + n_small * width
    if n_small == 0:
        return Groups(slots, present, [n_large], [widest], n_places, n_atoms)
    return Groups(slots, present, [n_large, n_small], [widest, width], n_places, n_atoms)


def padded(vectors: Tensor, groups: Groups, filler: float) -> Tensor:
    """``[n_pairs, d] -> [n_places, d]``; ``filler`` along all axes where there is no pair."""
    shape = [groups.n_places, vectors.shape[1]]
    empty = torch.full(shape, filler, dtype=vectors.dtype, device=vectors.device)
    return empty.index_copy_(0, groups.slots, vectors)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products of rows, ``[n, 1]``; of short ones quickest as a batch of matrix products."""
    return torch.bmm(a.unsqueeze(1), b.unsqueeze(2)).squeeze(2)


def by_bin(values: Tensor, groups: Groups) -> List[Tensor]:
    """``[n_places, d]`` seen as ``[size, width, d]`` for each bin, ``[n_places, 2, d]`` as ``[size, 2 width, d]``."""
    n_places = [size * width for size, width in zip(groups.sizes, groups.widths)]  # noqa: B905
    bins: List[Tensor] = []
    for k, part in enumerate(values.split_with_sizes(n_places)):
        rows = part.dim() - 1
        bins.append(part.reshape(groups.sizes[k], rows * groups.widths[k], values.shape[-1]))
    return bins
