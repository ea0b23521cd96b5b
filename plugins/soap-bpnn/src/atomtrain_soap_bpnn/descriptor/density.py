"""The density: pairs grouped by center and neighbour element, summed by one batched product.

Pair vectors are laid out ``[n_groups, width]`` before anything is computed of them. Places without
a pair hold a vector beyond the cutoff: radial functions and their derivatives are zero there, so
nothing has to be masked. One product of all harmonics with all radial functions is several times
quicker than one per degree, although only the blocks where the degrees match are used.
"""

from typing import List, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


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


def group_pairs(group: Tensor, n_atoms: int) -> Groups:
    """Lay out pairs of these groups, ``[n_pairs]``, each ``atom * n_species + s``."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        groups = _group_pairs(group, n_atoms)
    elif group.device.type == "cpu":
        groups = _group_pairs_numpy(group, n_atoms)
    else:
        groups = _group_pairs(group, n_atoms)
    return groups


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


class DensityBlocks(nn.Module):
    """From the product of all harmonics with all radial functions to one block a degree, and back.

    Blocks are ``[n_atoms, 2 l + 1, n_species * n_per_l[l]]``.
    """

    def __init__(self, n_per_l: List[int], n_species: int) -> None:
        super().__init__()
        self.n_species = n_species
        self.n_harmonics = len(n_per_l) ** 2
        self.n_radial = sum(n_per_l)
        self.rows: List[int] = [2 * degree + 1 for degree in range(len(n_per_l))]
        self.columns: List[int] = [n_species * n for n in n_per_l]
        self.sizes: List[int] = [m * q for m, q in zip(self.rows, self.columns)]  # noqa: B905
        used: List[int] = []  # elements of the product, by degree, m, n
        order: List[int] = []  # of [n_species, used], by degree, m, species, n
        n_used = sum(m * n for m, n in zip(self.rows, n_per_l))  # noqa: B905
        first = 0
        for degree, n in enumerate(n_per_l):
            for m in range(2 * degree + 1):
                for s in range(n_species):
                    order.extend(s * n_used + len(used) + k for k in range(n))
                row = (degree * degree + m) * self.n_radial
                used.extend(row + first + k for k in range(n))
            first += n
        self.used: Tensor
        self.order: Tensor
        self.back: Tensor
        self.register_buffer("used", torch.tensor(used), persistent=False)
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.register_buffer("back", torch.argsort(self.order), persistent=False)

    def split(self, flat: Tensor) -> List[Tensor]:
        """``[n_atoms, sum of block sizes] -> blocks``."""
        blocks: List[Tensor] = []
        for k, part in enumerate(flat.split_with_sizes(self.sizes, dim=1)):
            blocks.append(part.reshape(flat.shape[0], self.rows[k], self.columns[k]))
        return blocks

    def separate(self, flat: Tensor) -> Tensor:
        """``[n_atoms, sum of block sizes] -> [n_atoms, n_species, n_used]``."""
        flat = flat.index_select(1, self.back)
        return flat.reshape(flat.shape[0], self.n_species, self.used.shape[0])

    def join(self, by_species: Tensor) -> List[Tensor]:
        """``[n_atoms, n_species, n_used] -> blocks``."""
        return self.split(by_species.flatten(1).index_select(1, self.order))

    def forward(self, harmonics: Tensor, radial: Tensor, groups: Groups) -> Tensor:
        """Sums over pairs of harmonics times radial functions, ``[n_atoms, sum of block sizes]``.

        ``harmonics [n_places, n_harmonics]``, ``radial [n_places, n_radial]``.
        """
        parts: List[Tensor] = []
        y, r = by_bin(harmonics, groups), by_bin(radial, groups)
        for k, size in enumerate(groups.sizes):
            parts.append(self.product(y[k], r[k], size, groups.widths[k]))
        return self.by_atom(parts, groups)

    def product(self, harmonics: Tensor, radial: Tensor, size: int, width: int) -> Tensor:
        """Sums over the ``width`` places of each group, ``[size, n_used]``."""
        y = harmonics.reshape(size, width, self.n_harmonics)
        r = radial.reshape(size, width, self.n_radial)
        return self.used_of(torch.bmm(y.transpose(1, 2), r))

    def used_of(self, product: Tensor) -> Tensor:
        """``[size, n_harmonics, n_radial] -> [size, n_used]``: the elements whose degrees match."""
        return product.flatten(1).index_select(1, self.used)

    def by_atom(self, parts: List[Tensor], groups: Groups) -> Tensor:
        """Used elements of all groups in parts, ``[n, n_used]`` each, as rows of an atom each."""
        n_all = groups.n_atoms * self.n_species
        flat = parts[0]
        if flat.shape[0] < n_all:
            flat = torch.zeros([n_all, flat.shape[1]], dtype=flat.dtype, device=flat.device)
            for present, part in zip(groups.present.split_with_sizes(groups.sizes), parts):  # noqa: B905
                flat.index_copy_(0, present, part)
        if self.n_species > 1:
            flat = flat.reshape(groups.n_atoms, self.order.shape[0]).index_select(1, self.order)
        return flat

    def by_group(self, flat: Tensor, groups: Groups) -> Tensor:
        """The adjoint of :meth:`by_atom`, ``[n_groups, n_harmonics, n_radial]``; 0 where not used.

        Blocks of the highest degrees may be missing.
        """
        missing = self.order.shape[0] - flat.shape[1]
        if missing > 0:
            flat = torch.nn.functional.pad(flat, [0, missing])
        if self.n_species > 1:
            flat = flat.index_select(1, self.back)
        flat = flat.reshape(-1, self.used.shape[0])
        n_groups = groups.present.shape[0]
        if n_groups < flat.shape[0] or len(groups.sizes) > 1:
            flat = flat.index_select(0, groups.present)
        size = self.n_harmonics * self.n_radial
        product = torch.zeros([n_groups, size], dtype=flat.dtype, device=flat.device)
        product = product.index_copy_(1, self.used, flat)
        return product.reshape(n_groups, self.n_harmonics, self.n_radial)


def by_bin(values: Tensor, groups: Groups) -> List[Tensor]:
    """``[n_places, d]`` seen as ``[size, width, d]`` for each bin, ``[n_places, 2, d]`` as ``[size, 2 width, d]``."""
    n_places = [size * width for size, width in zip(groups.sizes, groups.widths)]  # noqa: B905
    bins: List[Tensor] = []
    for k, part in enumerate(values.split_with_sizes(n_places)):
        rows = part.dim() - 1
        bins.append(part.reshape(groups.sizes[k], rows * groups.widths[k], values.shape[-1]))
    return bins
