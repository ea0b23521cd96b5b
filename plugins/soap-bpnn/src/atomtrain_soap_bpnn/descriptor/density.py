"""The density: pairs grouped by center and neighbour element, summed by one batched product.

Pair vectors are laid out ``[n_groups, width]`` before anything is computed of them. Places without
a pair hold a vector beyond the cutoff: radial functions and their derivatives are zero there, so
nothing has to be masked. One product of all harmonics with all radial functions is several times
quicker than one per degree, although only the blocks where the degrees match are used.
"""

from typing import List, NamedTuple

import torch
from torch import Tensor, nn


class Groups(NamedTuple):
    """Where each pair goes in the padded layout ``[n_groups, width, ...]``.

    A group holds the neighbours of one element around one atom; those without any are left out.
    """

    slots: Tensor
    """[n_pairs] position of a pair in the flattened padded layout"""
    present: Tensor
    """[n_groups] which group of all, ``atom * n_species + s``, ascending"""
    n_groups: int
    width: int
    n_atoms: int


def group_pairs(group: Tensor, n_atoms: int) -> Groups:
    """Lay out pairs whose ``group [n_pairs]`` (``atom * n_species + s``) ascends."""
    n_pairs = group.shape[0]
    present, which, counts = torch.unique_consecutive(
        group, return_inverse=True, return_counts=True
    )
    width = int(counts.max()) if n_pairs > 0 else 1
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(n_pairs, device=group.device) - starts.index_select(0, which)
    return Groups(which * width + rank, present, present.shape[0], width, n_atoms)


def padded(vectors: Tensor, groups: Groups, filler: float) -> Tensor:
    """``[n_pairs, 3] -> [n_groups * width, 3]``; ``filler`` along all axes where there is no pair."""
    shape = [groups.n_groups * groups.width, 3]
    empty = torch.full(shape, filler, dtype=vectors.dtype, device=vectors.device)
    return empty.index_copy(0, groups.slots, vectors)


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
        for k, part in enumerate(flat.split(self.sizes, dim=1)):
            blocks.append(part.reshape(flat.shape[0], self.rows[k], self.columns[k]))
        return blocks

    def forward(self, product: Tensor, groups: Groups) -> Tensor:
        """``[n_groups, n_harmonics, n_radial] -> [n_atoms, sum of block sizes]``."""
        flat = product.flatten(1).index_select(1, self.used)
        n_all = groups.n_atoms * self.n_species
        if groups.n_groups < n_all:
            shape = [n_all, flat.shape[1]]
            everywhere = torch.zeros(shape, dtype=flat.dtype, device=flat.device)
            flat = everywhere.index_copy(0, groups.present, flat)
        if self.n_species > 1:
            flat = flat.reshape(groups.n_atoms, self.order.shape[0]).index_select(1, self.order)
        return flat

    @torch.jit.ignore
    def expand(self, flat: Tensor, groups: Groups) -> Tensor:
        """The adjoint of :meth:`forward`: ``[n_groups, n_harmonics, n_radial]``."""
        if self.n_species > 1:
            flat = flat.index_select(1, self.back)
        flat = flat.reshape(-1, self.used.shape[0])
        if groups.n_groups < flat.shape[0]:
            flat = flat.index_select(0, groups.present)
        size = self.n_harmonics * self.n_radial
        product = torch.zeros((groups.n_groups, size), dtype=flat.dtype, device=flat.device)
        return product.index_add_(1, self.used, flat).view(-1, self.n_harmonics, self.n_radial)


def grouped(values: Tensor, groups: Groups) -> Tensor:
    """``[n_groups * width, d]`` seen as ``[n_groups, width, d]``."""
    return values.reshape(groups.n_groups, groups.width, values.shape[1])


def product_over_pairs(harmonics: Tensor, radial: Tensor, groups: Groups) -> Tensor:
    """``[n_groups, n_harmonics, n_radial]``: sum over each group of harmonics times radial.

    ``harmonics [n_groups * width, n_harmonics]``, ``radial [n_groups * width, n_radial]``.
    """
    return torch.bmm(grouped(harmonics, groups).transpose(1, 2), grouped(radial, groups))


def power_spectrum(densities: List[Tensor]) -> Tensor:
    """``[n_atoms, n_features]``: products of the density with itself, summed over m, per degree."""
    spectra: List[Tensor] = []
    for c in densities:
        spectra.append(torch.bmm(c.transpose(1, 2), c).flatten(1))
    return torch.cat(spectra, dim=1)
