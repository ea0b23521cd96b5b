"""Spherical harmonics against sphericart."""

from __future__ import annotations

import copy
import pickle

import pytest
import sphericart.torch
import torch

from atomtrain_density.harmonics import HarmonicsAndGradients, SphericalHarmonics


@pytest.mark.parametrize("max_angular", [0, 1, 6, 9])
def test_harmonics_are_sphericarts(max_angular: int) -> None:
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(50, 3, dtype=torch.float64, generator=generator)
    vectors[0] = torch.tensor([0.0, 0.0, 1.3])  # along z, where angles are singular
    vectors[1] = torch.tensor([0.0, 0.0, -0.7])
    mine = vectors.clone().requires_grad_(True)
    values = SphericalHarmonics(max_angular).to(torch.float64)(
        mine / torch.linalg.vector_norm(mine, dim=1, keepdim=True)
    )
    expected, gradients = sphericart.torch.SphericalHarmonics(max_angular).compute_with_gradients(
        vectors
    )
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)
    if max_angular == 0:
        return  # a constant
    weights = torch.randn(values.shape, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad((values * weights).sum(), mine)
    torch.testing.assert_close(
        gradient, (gradients * weights[:, None]).sum(2), rtol=1e-11, atol=1e-11
    )


def test_values_without_autograd_are_the_same() -> None:
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(50, 3, dtype=torch.float64, generator=generator)
    directions = torch.nn.functional.normalize(directions, dim=1)
    harmonics = SphericalHarmonics(6)
    values = harmonics.values(directions)
    torch.testing.assert_close(values, harmonics(directions), rtol=1e-13, atol=1e-13)


def test_harmonics_and_gradients_can_be_copied() -> None:
    vectors = torch.randn(5, 3, dtype=torch.float64)
    harmonics = HarmonicsAndGradients(3)
    expected = harmonics.compute(vectors)
    assert [tuple(part.shape) for part in expected] == [(5, 16), (5, 3, 16)]
    assert [tuple(part.shape) for part in harmonics.compute(vectors[:0])] == [(0, 16), (0, 3, 16)]
    for copied in (copy.deepcopy(harmonics), pickle.loads(pickle.dumps(harmonics))):
        for part, other in zip(copied.compute(vectors), expected, strict=True):
            assert torch.equal(part, other)


@pytest.mark.parametrize("max_angular", [0, 1, 6])
def test_plain_operations_give_what_sphericart_gives(max_angular: int) -> None:
    """On other devices sphericart's kernels may be missing: they need one version of CUDA's compiler."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(50, 3, dtype=torch.float64, generator=generator)
    vectors[0] = torch.tensor([0.0, 0.0, 1.3])
    harmonics = HarmonicsAndGradients(max_angular)
    for part, other in zip(harmonics.plain(vectors), harmonics.compute(vectors), strict=True):
        torch.testing.assert_close(part, other, rtol=1e-11, atol=1e-11)
