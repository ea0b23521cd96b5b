"""Scalars per atom and their slopes against autograd."""

import pytest
import torch
from torch import Tensor

from atomtrain_soap_bpnn.network import by_species
from atomtrain_soap_bpnn.scalars import Network, scalars

N_FEATURES, N_NEURONS = 7, 5


def network_of(n_species: int, n_hidden: int) -> Network:
    generator = torch.Generator().manual_seed(0)

    def weights(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_(True)

    return Network(
        weights(n_species, N_NEURONS, N_FEATURES),
        weights(n_species, N_NEURONS),
        [weights(n_species, N_NEURONS, N_NEURONS) for _ in range(n_hidden)],
        weights(n_species, 1, N_NEURONS),
    )


def atom_by_atom(x: Tensor, species: Tensor, network: Network) -> Tensor:
    found = []
    for row, s in zip(x, species.tolist(), strict=True):
        a = torch.nn.functional.silu(network.first[s] @ row + network.offset[s])
        for weight in network.hidden:
            a = torch.nn.functional.silu(weight[s] @ a)
        found.append(network.last[s] @ a)
    return torch.stack(found)


@pytest.mark.parametrize("n_hidden", [0, 1, 3])
@pytest.mark.parametrize(
    "species", [[0, 0, 0], [2, 0, 2, 1, 0, 2, 2], [2, 0, 2], [1]], ids=str
)  # elements may be missing
@pytest.mark.parametrize("of", ["scalars", "slopes", "both"])
def test_scalars_are_autograds(n_hidden: int, species: list[int], of: str) -> None:
    kinds = torch.tensor(species)
    network = network_of(3, n_hidden)
    weights = [network.first, network.offset, network.last, *network.hidden]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(kinds), N_FEATURES, dtype=torch.float64, generator=generator)
    a = torch.randn(len(kinds), 1, dtype=torch.float64, generator=generator)
    b = torch.randn(x.shape, dtype=torch.float64, generator=generator)

    y, g = scalars(x, by_species(kinds, 3), network, True)
    moving = x.clone().requires_grad_(True)
    wanted_y = atom_by_atom(moving, kinds, network)
    (wanted_g,) = torch.autograd.grad(wanted_y.sum(), moving, create_graph=True)
    assert g is not None
    torch.testing.assert_close(y, wanted_y, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(g, wanted_g, rtol=1e-12, atol=1e-13)

    def loss(y: Tensor, g: Tensor) -> Tensor:
        parts = {"scalars": (a * y).sum(), "slopes": (b * g).sum()}
        return parts.get(of, parts["scalars"] + parts["slopes"])

    found = torch.autograd.grad(loss(y, g), weights)
    wanted = torch.autograd.grad(loss(wanted_y, wanted_g), weights, materialize_grads=True)
    for mine, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-11, atol=1e-12)


def test_scalars_without_slopes() -> None:
    network = network_of(2, 1)
    x = torch.randn(4, N_FEATURES, dtype=torch.float64)
    layout = by_species(torch.tensor([1, 0, 1, 1]), 2)
    y, g = scalars(x, layout, network, False)
    assert g is None
    assert torch.equal(y, scalars(x, layout, network, True)[0])
