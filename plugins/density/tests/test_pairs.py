"""Layouts of pairs: what they promise; numpy's, and those of scripted code by torch, alike."""

import pytest
import torch
from helpers.layouts import check_alike
from torch import Tensor

from atomtrain_density.pairs import group_of, group_pairs

SCRIPTED_PAIRS = torch.jit.script(group_pairs)


def groups_of(n_atoms: int, n_species: int, n_pairs: int, uneven: bool, ascending: bool) -> Tensor:
    generator = torch.Generator().manual_seed(n_atoms + n_pairs)
    x = torch.rand(n_pairs, generator=generator, dtype=torch.float64)
    group = ((x**3 if uneven else x) * n_atoms * n_species).to(torch.int64)
    return torch.sort(group)[0] if ascending else group


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("uneven", [True, False])
@pytest.mark.parametrize(
    "n_atoms, n_species, n_pairs",
    [(0, 1, 0), (3, 2, 0), (1, 1, 1), (9, 3, 72), (60, 2, 5000), (40_000, 3, 2000)],
)  # the last has groups that 16 bits do not hold
def test_pairs(n_atoms: int, n_species: int, n_pairs: int, uneven: bool, ascending: bool) -> None:
    group = groups_of(n_atoms, n_species, n_pairs, uneven, ascending)
    groups = group_pairs(group, n_atoms)
    check_alike(groups, SCRIPTED_PAIRS(group, n_atoms))
    # every pair has a place of its own, in the row of its group
    assert len(torch.unique(groups.slots)) == n_pairs
    rows = [
        present.repeat_interleave(width)
        for present, width in zip(groups.present.split(groups.sizes), groups.widths, strict=True)
    ]
    owner = torch.cat(rows)
    assert len(owner) == groups.n_places
    assert torch.equal(owner[groups.slots], group)
    assert torch.equal(torch.sort(groups.present)[0], torch.unique(group))


def test_small_groups_have_a_bin() -> None:
    group = groups_of(60, 2, 5000, True, True)
    groups = group_pairs(group, 60)
    assert len(groups.sizes) == 2
    largest = int(torch.bincount(group).max())
    assert groups.n_places < len(groups.present) * largest


def test_groups_go_by_center_and_element_of_the_neighbour() -> None:
    centers, neighbors = torch.tensor([0, 0, 2]), torch.tensor([1, 2, 0])
    assert group_of(centers, neighbors, torch.tensor([1, 0, 1]), 2).tolist() == [0, 1, 5]
