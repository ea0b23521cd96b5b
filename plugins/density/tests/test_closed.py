"""The density and its derivatives in TorchScript against autograd."""

import pytest
import torch
from helpers.density import cluster, expansion, plain_sum
from torch import Tensor, nn

from atomtrain_density.closed import ClosedDensity


class Both(nn.Module):
    """The density and, for a derivative in it, that in the vectors, either way."""

    def __init__(self, closed: ClosedDensity) -> None:
        super().__init__()
        self.closed = closed

    def forward(
        self, vectors: Tensor, group: Tensor, n_atoms: int, gradient: Tensor, one_by_one: bool
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            if one_by_one:
                pairs = self.closed.pair_by_pair(vectors, group, n_atoms)
                blocks = self.closed.blocks
                density = pairs.density.reshape(n_atoms, blocks.n_species, blocks.n_used)
                joined = [block.flatten(1) for block in blocks.join(density)]
                g = blocks.separate(gradient).reshape(pairs.density.shape)
                return torch.cat(joined, dim=1), self.closed.pairs_adjoint(pairs, g)
            kept = self.closed.neighborhoods(vectors, group, n_atoms)
            return kept.density, self.closed.adjoint(kept, gradient)


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_atoms", [1, 6, 60])
def test_adjoint_is_autograds(n_atoms: int, shared: bool, one_by_one: bool) -> None:
    graph, _, group = cluster(n_atoms)
    vectors = graph.vectors.clone().requires_grad_(True)
    expected = plain_sum(vectors, group, n_atoms, shared)
    flat = torch.cat([block.flatten(1) for block in expected], dim=1)
    gradient = torch.randn(flat.shape, dtype=torch.float64)
    (slope,) = torch.autograd.grad((flat * gradient).sum(), vectors)
    both = Both(ClosedDensity(*expansion(shared)))
    for module in (both, torch.jit.script(both)):
        for _ in range(3):  # it is optimised in between
            density, found = module(graph.vectors, group, n_atoms, gradient, one_by_one)
            torch.testing.assert_close(density, flat.detach(), rtol=1e-11, atol=1e-12)
            torch.testing.assert_close(found, slope, rtol=1e-9, atol=1e-11)
