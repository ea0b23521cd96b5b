"""The density: pairs grouped by center and neighbour element, summed by batched products."""

from typing import List, NamedTuple

import torch
from torch import Tensor


class Groups(NamedTuple):
    """Where each pair goes in the padded layout ``[n_groups, width, ...]``.

    A group holds the neighbours of one element around one atom: ``group = atom * n_species + s``.
    """

    slots: Tensor
    """[n_pairs] position of a pair in the flattened padded layout"""
    rows: Tensor
    """[n_groups * width] pair at each position; ``n_pairs`` (a row of zeros) where there is none"""
    n_groups: int
    width: int


def group_pairs(group: Tensor, n_groups: int) -> Groups:
    """Lay out pairs whose ``group [n_pairs]`` ascends."""
    n_pairs = group.shape[0]
    counts = torch.bincount(group, minlength=n_groups)
    width = int(counts.max()) if n_pairs > 0 else 1
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(n_pairs, device=group.device) - starts.index_select(0, group)
    slots = group * width + rank
    rows = torch.full((n_groups * width,), n_pairs, dtype=torch.int64, device=group.device)
    rows = rows.index_copy(0, slots, torch.arange(n_pairs, device=group.device))
    return Groups(slots, rows, n_groups, width)


def padded(values: Tensor, groups: Groups) -> Tensor:
    """``[n_pairs, d]`` -> ``[n_groups, width, d]``, zeros where there is no pair."""
    zero = torch.zeros((1, values.shape[1]), dtype=values.dtype, device=values.device)
    rows = torch.cat([values, zero]).index_select(0, groups.rows)
    return rows.reshape(groups.n_groups, groups.width, values.shape[1])


def density(
    harmonics: Tensor, radial: Tensor, groups: Groups, n_species: int, n_per_l: List[int]
) -> List[Tensor]:
    """Density of each degree, ``[n_atoms, 2 l + 1, n_species * n_per_l[l]]``.

    ``harmonics [n_pairs, (L + 1)^2]``, ``radial [n_pairs, sum(n_per_l)]``.
    """
    angular = padded(harmonics, groups).transpose(1, 2)
    distances = padded(radial, groups)
    result: List[Tensor] = []
    start = 0
    for degree, n in enumerate(n_per_l):
        m = 2 * degree + 1
        block = torch.bmm(
            angular[:, degree * degree : degree * degree + m], distances[:, :, start : start + n]
        )
        block = block.reshape(groups.n_groups // n_species, n_species, m, n)
        result.append(block.transpose(1, 2).reshape(-1, m, n_species * n))
        start += n
    return result


def power_spectrum(densities: List[Tensor]) -> Tensor:
    """``[n_atoms, n_features]``: products of the density with itself, summed over m, per degree."""
    spectra: List[Tensor] = []
    for c in densities:
        spectra.append(torch.bmm(c.transpose(1, 2), c).flatten(1))
    return torch.cat(spectra, dim=1)
