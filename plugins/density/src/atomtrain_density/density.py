"""The density: harmonics times radial functions, summed over the pairs of a group by one batched product.

One product of all harmonics with all radial functions is several times quicker than one per degree,
although only the blocks where the degrees match are used. Where all degrees share their radial functions
all of it is.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import List

import torch
from torch import Tensor, nn

from atomtrain_density.elements import BySpecies
from atomtrain_density.pairs import Groups, by_bin


class DensityBlocks(nn.Module):
    """From the product of all harmonics with all radial functions to one block a degree, and back.

    Blocks are ``[n_atoms, 2 l + 1, n_species * n_per_l[l]]``. The radial functions lie side by side,
    degree after degree; with ``shared`` they are the same for all degrees, ``n_per_l[0]`` in all.
    """

    def __init__(self, n_per_l: List[int], n_species: int, shared: bool = False) -> None:
        super().__init__()
        if shared and len(set(n_per_l)) > 1:
            raise ValueError(f"shared radial functions are as many for every degree, not {n_per_l}")
        self.n_species = n_species
        self.n_harmonics = len(n_per_l) ** 2
        self.n_radial = n_per_l[0] if shared else sum(n_per_l)
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
            first += 0 if shared else n
        self.n_used = n_used
        self.all_used = n_used == self.n_harmonics * self.n_radial  # and in order
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
        return flat.reshape(flat.shape[0], self.n_species, self.n_used)

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
        flat = product.flatten(1)
        return flat if self.all_used else flat.index_select(1, self.used)

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
        flat = flat.reshape(-1, self.n_used)
        n_groups = groups.present.shape[0]
        if n_groups < flat.shape[0] or len(groups.sizes) > 1:
            flat = flat.index_select(0, groups.present)
        if not self.all_used:
            size = self.n_harmonics * self.n_radial
            product = torch.zeros([n_groups, size], dtype=flat.dtype, device=flat.device)
            flat = product.index_copy_(1, self.used, flat)
        return flat.reshape(n_groups, self.n_harmonics, self.n_radial)


def by_element(flat: Tensor, layout: BySpecies, n_harmonics: int, mean: Tensor) -> List[Tensor]:
    """``[n_atoms, K Q]`` (or more degrees) -> ``[K n_s, Q]`` for each element, ``mean [S, Q]`` taken off."""
    n_columns = mean.shape[1]
    if flat.shape[1] > n_harmonics * n_columns:
        flat = flat[:, : n_harmonics * n_columns]
    if layout.n_species > 1:
        flat = flat.index_select(0, layout.order)
    parts = as_rows(flat, layout.counts, n_harmonics)
    for s, rows in enumerate(parts):
        rows[: layout.counts[s]] -= mean[s]
    return parts


def by_atom(parts: List[Tensor], layout: BySpecies, n_harmonics: int) -> Tensor:
    """The inverse, but for the mean."""
    flat = as_atoms(parts, n_harmonics)
    return flat if layout.n_species == 1 else flat.index_select(0, layout.ranks)


def as_rows(flat: Tensor, counts: List[int], n_harmonics: int) -> List[Tensor]:
    """Atoms sorted by element, ``[n_atoms, K Q]``, as rows by harmonic and atom: ``[K n_s, Q]`` for each element."""
    n_columns = flat.shape[1] // n_harmonics
    parts: List[Tensor] = []
    for part in flat.split_with_sizes(counts):
        n = part.shape[0]
        rows = torch.empty([n_harmonics * n, n_columns], dtype=flat.dtype, device=flat.device)
        by_atom = part.view(n, n_harmonics, n_columns)
        rows.view(n_harmonics, n, n_columns).copy_(by_atom.transpose(0, 1))
        parts.append(rows)
    return parts


def as_atoms(parts: List[Tensor], n_harmonics: int) -> Tensor:
    """The inverse, ``[n_atoms, K Q]``."""
    atoms: List[Tensor] = []
    for part in parts:
        n, n_columns = part.shape[0] // n_harmonics, part.shape[1]
        by_row = part.view(n_harmonics, n, n_columns).transpose(0, 1)
        atoms.append(by_row.reshape(n, n_harmonics * n_columns))
    return atoms[0] if len(atoms) == 1 else torch.cat(atoms)
