"""Scalars per atom and their slopes against autograd."""

import pytest
import torch
from torch import Tensor

from atomtrain_density.elements import by_species
from atomtrain_soap_bpnn.scalars import Inputs, Network, scalars, scalars_of_few

N_FEATURES, N_NEURONS = 7, 5
ROOT = torch.tensor([1.0, 2.0, 1.0, 2.0, 2.0, 1.0, 1.0], dtype=torch.float64).sqrt()
N_PRODUCTS = 10  # of which three are another's equal


def without_mean(x: Tensor) -> Tensor:
    return x - (x @ ROOT).unsqueeze(-1) * ROOT / N_PRODUCTS


def network_of(n_species: int, n_hidden: int, normalised: bool, n_atoms: int) -> Network:
    generator = torch.Generator().manual_seed(0)

    def weights(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    first = weights(n_species, N_NEURONS, N_FEATURES)
    if normalised:
        first = without_mean(first)
    return Network(
        first,
        weights(n_species, N_NEURONS),
        [weights(n_species, N_NEURONS, N_NEURONS) for _ in range(n_hidden)],
        weights(n_species, 1, N_NEURONS),
        [weights(n_atoms, N_NEURONS)],
    )


def inputs_of(p: Tensor, normalised: bool) -> Inputs:
    if not normalised:
        return Inputs(p, torch.ones_like(p[:, :1]), 0)
    centre = without_mean(p)
    inverse = (centre.square().sum(1, keepdim=True) / N_PRODUCTS + 1e-5).rsqrt()
    return Inputs(centre * inverse, inverse, N_PRODUCTS)


def atom_by_atom(x: Tensor, species: Tensor, network: Network) -> Tensor:
    found = []
    for row, s, shift in zip(x, species.tolist(), network.shift[0], strict=True):
        a = torch.nn.functional.silu(network.first[s] @ row + network.offset[s] + shift)
        for weight in network.hidden:
            a = torch.nn.functional.silu(weight[s] @ a)
        found.append(network.last[s] @ a)
    return torch.stack(found)


ELEMENTS = pytest.mark.parametrize(
    "species", [[0, 0, 0], [2, 0, 2, 1, 0, 2, 2], [2, 0, 2], [1]], ids=str
)  # some may be missing


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("n_hidden", [0, 1, 3])
@ELEMENTS
@pytest.mark.parametrize("of", ["scalars", "slopes", "both"])
def test_scalars_are_autograds(
    normalised: bool, n_hidden: int, species: list[int], of: str
) -> None:
    kinds = torch.tensor(species)
    network = network_of(3, n_hidden, normalised, len(kinds))
    weights = [network.first, network.offset, network.last, *network.hidden, *network.shift]
    for weight in weights:
        weight.requires_grad_(True)
    if normalised:  # derivatives are those within the weights without a mean
        network = network._replace(first=without_mean(network.first))
    generator = torch.Generator().manual_seed(1)
    p = torch.randn(len(kinds), N_FEATURES, dtype=torch.float64, generator=generator)
    a = torch.randn(len(kinds), 1, dtype=torch.float64, generator=generator)
    b = torch.randn(p.shape, dtype=torch.float64, generator=generator)

    y, g = scalars(inputs_of(p, normalised), by_species(kinds, 3), network, True)
    moving = p.clone().requires_grad_(True)
    wanted_y = atom_by_atom(inputs_of(moving, normalised).features, kinds, network)
    (wanted_g,) = torch.autograd.grad(wanted_y.sum(), moving, create_graph=True)
    assert g is not None
    torch.testing.assert_close(y, wanted_y, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(g, wanted_g, rtol=1e-12, atol=1e-13)

    def loss(y: Tensor, g: Tensor) -> Tensor:
        parts = {"scalars": (a * y).sum(), "slopes": (b * g).sum()}
        return parts.get(of, parts["scalars"] + parts["slopes"])

    found = torch.autograd.grad(loss(y, g), weights, retain_graph=True)
    wanted = torch.autograd.grad(loss(wanted_y, wanted_g), weights, materialize_grads=True)
    for mine, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("n_hidden", [0, 2])
@ELEMENTS
def test_few_atoms(normalised: bool, n_hidden: int, species: list[int]) -> None:
    kinds = torch.tensor(species)
    network = network_of(3, n_hidden, normalised, len(kinds))
    generator = torch.Generator().manual_seed(1)
    p = torch.randn(len(kinds), N_FEATURES, dtype=torch.float64, generator=generator)
    inputs = inputs_of(p, normalised)
    wanted = scalars(inputs, by_species(kinds, 3), network, True)
    own = torch.nn.functional.one_hot(kinds, 3).to(torch.float64)
    torch.testing.assert_close(
        scalars_of_few(inputs, kinds, own, network)[:2], wanted, rtol=1e-11, atol=1e-12
    )


def test_scalars_without_slopes() -> None:
    network = network_of(2, 1, True, 4)
    p = torch.randn(4, N_FEATURES, dtype=torch.float64)
    layout = by_species(torch.tensor([1, 0, 1, 1]), 2)
    inputs = inputs_of(p, True)
    y, g = scalars(inputs, layout, network, False)
    assert g is None
    assert torch.equal(y, scalars(inputs, layout, network, True)[0])
