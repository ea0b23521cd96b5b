"""The autograd functions of the density against autograd on plain sums."""

from __future__ import annotations

import pytest
import torch
from helpers.density import MAX_ANGULAR, cluster, expansion, plain_sum

from atomtrain_density.derivatives import PairBasis, densities
from atomtrain_density.harmonics import HarmonicsAndGradients


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_atoms", [1, 6, 60])
@pytest.mark.parametrize("kept", [True, False])
def test_density_and_its_derivatives(shared: bool, n_atoms: int, kept: bool) -> None:
    """Values, derivatives in the vectors, and what training on them takes the derivative of."""
    _, radial, blocks = expansion(shared)
    graph, species, group = cluster(n_atoms)
    places = radial.places(torch.linalg.vector_norm(graph.vectors, dim=1)) if kept else None
    harmonics = HarmonicsAndGradients(MAX_ANGULAR)
    basis = PairBasis.of(graph, species, harmonics, radial, blocks, places)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(sum(blocks.sizes), dtype=torch.float64, generator=generator)
    aim = torch.randn(graph.vectors.shape, dtype=torch.float64, generator=generator)

    def results(explicit: bool) -> list[torch.Tensor]:
        vectors = graph.vectors.clone().requires_grad_(True)
        w = weight.clone().requires_grad_(True)
        if explicit:
            found = densities(vectors, basis.density(), basis)
        else:
            found = plain_sum(vectors, group, n_atoms, shared)
        flat = torch.cat([block.flatten(1) for block in found], dim=1)
        energy = (torch.tanh(flat * w)).sum()
        (slope,) = torch.autograd.grad(energy, vectors, create_graph=True)
        (by_weight,) = torch.autograd.grad((slope * aim).sum(), w, allow_unused=True)
        return [flat, slope, w * 0 if by_weight is None else by_weight]

    for mine, reference in zip(results(True), results(False), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-11)


def test_blocks_of_the_highest_degrees_may_be_missing() -> None:
    _, radial, blocks = expansion(True)
    graph, species, _ = cluster(6)
    basis = PairBasis.of(graph, species, HarmonicsAndGradients(MAX_ANGULAR), radial, blocks)
    gradient = torch.randn(6, sum(blocks.sizes[:2]), dtype=torch.float64)
    whole = torch.nn.functional.pad(gradient, [0, sum(blocks.sizes[2:])])
    assert torch.equal(basis.adjoint(gradient), basis.adjoint(whole))
