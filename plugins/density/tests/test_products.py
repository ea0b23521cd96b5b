"""Products on the grid, their derivatives, and the two ways to compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from atomtrain_density.elements import by_species
from atomtrain_density.harmonics import SphericalHarmonics, quadrature
from atomtrain_density.products import Products

N_SPECIES, N_COLUMNS, N_CHANNELS, N_ATOMS = 3, 4, 3, 7
SPECIES = torch.tensor([0, 2, 0, 2, 2, 0, 2])  # one element is not there
COUNTS = [3, 0, 4]


def some(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(degree: int, correlation: int) -> tuple[Products, list[Tensor], Tensor, Tensor]:
    products = Products(degree, N_CHANNELS, correlation).to(torch.float64)
    density = [some(products.n_harmonics * n, N_COLUMNS, seed=k) for k, n in enumerate(COUNTS)]
    shape = (degree + 1, N_SPECIES, N_COLUMNS)
    pair = some(*shape, 2 * N_CHANNELS, seed=10)
    third = some(*shape, products.n_third, seed=11)
    return products, density, pair, third


@pytest.mark.parametrize("degree", [3, 6, 9, 12, 18])
def test_quadrature_is_exact(degree: int) -> None:
    points, weights = quadrature(degree)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0)
    y = SphericalHarmonics(degree)(torch.from_numpy(points))
    integrals = torch.from_numpy(weights) @ y
    expected = torch.zeros_like(integrals)
    expected[0] = math.sqrt(4 * math.pi)
    torch.testing.assert_close(integrals, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_product_is_that_of_the_functions(degree: int) -> None:
    """Against a finer quadrature of the functions themselves."""
    products = Products(degree, 1, 3).to(torch.float64)
    size = products.n_harmonics
    a, b = some(size, seed=1), some(size, seed=2)
    both = torch.stack([a, b], 1)  # one atom, one channel
    points = products.transform(products.to_points, both, [1])
    found = products.transform(products.from_points, points[:, :1] * points[:, 1:], [1])[:, 0]
    x, w = quadrature(4 * degree + 3)
    y = SphericalHarmonics(degree)(torch.from_numpy(x))
    norm = math.sqrt(4 * math.pi / size)
    expected = norm * ((y @ a) * (y @ b) * torch.from_numpy(w)) @ y
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("correlation", [2, 3, 4])
def test_both_ways_to_features_agree(correlation: int) -> None:
    products, density, pair, third = made(2, correlation)
    channels = products.channels_of(density, pair, third, COUNTS)
    found = products.features(channels, COUNTS)
    assert found.shape == (N_ATOMS, products.n_features)
    layout = by_species(SPECIES, N_SPECIES)
    by_element = [
        d.reshape(products.n_harmonics, n, N_COLUMNS).transpose(0, 1)
        for d, n in zip(density, COUNTS, strict=True)
    ]
    in_order = torch.cat(by_element)[layout.ranks]
    plain = products.plain(in_order, layout, pair, third).features[layout.order]
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("correlation", [2, 3, 4])
def test_tangents_and_adjoints(correlation: int) -> None:
    products, density, pair, third = made(2, correlation)
    moves = [some(*d.shape, seed=20 + k) for k, d in enumerate(density)]
    g = some(N_ATOMS, products.n_features, seed=30)

    def features(step: float) -> Tensor:
        moved = [d + step * m for d, m in zip(density, moves, strict=True)]
        return products.features(products.channels_of(moved, pair, third, COUNTS), COUNTS)

    h = 1e-5
    change = (features(h) - features(-h)) / (2 * h)
    channels = products.channels_of(density, pair, third, COUNTS)
    tangent = products.channels_of(moves, pair, third, COUNTS, channels)
    found = products.features(channels, COUNTS, tangent)
    torch.testing.assert_close(found, change, rtol=1e-6, atol=1e-6)

    by_channels, _ = products.adjoint(channels, g, COUNTS)
    by_density = products.unmix(by_channels.pair, pair, COUNTS)
    if correlation > 2:
        more = products.unmix(by_channels.third, third, COUNTS)
        by_density = [a + b for a, b in zip(by_density, more, strict=True)]
    along = sum(float((a * b).sum()) for a, b in zip(by_density, moves, strict=True))
    assert along == pytest.approx(float((g * found).sum()), rel=1e-10)


def test_inversion_leaves_features() -> None:
    """All products are of even parity."""
    products, density, pair, third = made(3, 4)
    signs = torch.cat([torch.full((2 * k + 1,), (-1.0) ** k) for k in range(4)])
    inverted = [
        (d.reshape(16, n, N_COLUMNS) * signs[:, None, None]).reshape(d.shape)
        for d, n in zip(density, COUNTS, strict=True)
    ]
    one, other = (
        products.features(products.channels_of(d, pair, third, COUNTS), COUNTS)
        for d in (density, inverted)
    )
    torch.testing.assert_close(one, other)
