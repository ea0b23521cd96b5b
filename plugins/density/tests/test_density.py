"""The density against plain sums over pairs."""

from __future__ import annotations

import pytest
import torch
from helpers.density import CUTOFF, cluster, expansion, plain_sum

from atomtrain_density.density import DensityBlocks
from atomtrain_density.pairs import group_pairs, padded


@pytest.mark.parametrize("sizes", [[3] * 50, [40] * 9 + [0, 2] * 40 + [7] * 9, [0] * 4, []])
def test_density_in_bins(sizes: list[int]) -> None:
    """Sums over pairs, whatever the bins; small groups have one of their own where that pays."""
    counts = torch.tensor(sizes, dtype=torch.int64)
    counts = counts[torch.randperm(len(counts), generator=torch.Generator().manual_seed(0))]
    n_species = 2
    n_atoms = -(-len(counts) // n_species)
    group = torch.repeat_interleave(torch.arange(len(counts)), counts)
    blocks = DensityBlocks([3, 2], n_species)
    groups = group_pairs(group, n_atoms)
    assert len(set(groups.slots.tolist())) == len(group)
    assert len(groups.sizes) == (2 if max(sizes, default=0) == 40 else 1)
    assert groups.n_places < 2 * max(1, len(group))
    y, r = torch.randn(len(group), 4), torch.randn(len(group), 5)
    at_places = [torch.zeros(groups.n_places, t.shape[1]) for t in (y, r)]
    for places, values in zip(at_places, (y, r), strict=True):
        places[groups.slots] = values
    found = blocks.split(blocks(*at_places, groups))
    for degree, radial in ((0, slice(0, 3)), (1, slice(3, 5))):
        harmonics = slice(degree**2, (degree + 1) ** 2)
        each = y[:, harmonics, None] * r[:, None, radial]
        sums = torch.zeros(n_atoms * n_species, *each.shape[1:]).index_add(0, group, each)
        by_atom = sums.unflatten(0, (n_atoms, n_species)).transpose(1, 2).flatten(2)
        torch.testing.assert_close(found[degree], by_atom)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_atoms", [1, 6, 60])
def test_density_is_the_sum_over_pairs(shared: bool, n_atoms: int) -> None:
    harmonics, radial, blocks = expansion(shared)
    graph, _, group = cluster(n_atoms)
    groups = group_pairs(group, n_atoms)
    vectors = padded(graph.vectors, groups, CUTOFF)
    r = torch.linalg.vector_norm(vectors, dim=1)
    flat = blocks(harmonics(vectors / r.unsqueeze(1)), radial(r), groups)
    expected = plain_sum(graph.vectors, group, n_atoms, shared)
    for block, other in zip(blocks.split(flat), expected, strict=True):
        torch.testing.assert_close(block, other, rtol=1e-11, atol=1e-12)
    for block, other in zip(blocks.join(blocks.separate(flat)), expected, strict=True):
        torch.testing.assert_close(block, other, rtol=1e-11, atol=1e-12)


def test_shared_functions_use_the_whole_product() -> None:
    assert DensityBlocks([3, 3], 2, shared=True).all_used
    assert DensityBlocks([3, 3], 2, shared=True).n_radial == 3
    assert not DensityBlocks([3, 3], 2).all_used
    with pytest.raises(ValueError, match="as many for every degree"):
        DensityBlocks([3, 2], 2, shared=True)
