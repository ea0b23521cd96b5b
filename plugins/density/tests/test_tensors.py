"""What couples tensors; how predictions turn is tested with the architectures."""

from __future__ import annotations

import numpy as np
import torch

from atomtrain_density.harmonics import SphericalHarmonics
from atomtrain_density.tensors import Coupling, SolidHarmonics, clebsch_gordan


def test_couplings() -> None:
    """Orthonormal; the product of two vectors of degree 1 is dot, cross and traceless matrix."""
    for l1, l2, degree in ((1, 1, 0), (1, 1, 1), (1, 1, 2), (2, 1, 3), (3, 2, 4)):
        table = clebsch_gordan(l1, l2, degree).reshape(-1, 2 * degree + 1)
        unit = torch.eye(2 * degree + 1, dtype=torch.float64)
        torch.testing.assert_close(table.T @ table, unit, rtol=0, atol=1e-13)
    a, b = torch.randn(2, 7, 3, dtype=torch.float64)
    dot = (a * b).sum(1) / np.sqrt(3)
    torch.testing.assert_close(Coupling(1, 1, 0)(a, b)[:, 0].abs(), dot.abs())
    cross = torch.linalg.cross(a, b) / np.sqrt(2)
    torch.testing.assert_close(Coupling(1, 1, 1)(a, b).abs(), cross.abs())


def test_solid_harmonics() -> None:
    v = torch.randn(20, 3, dtype=torch.float64)
    r = v.norm(dim=1, keepdim=True)
    reference = SphericalHarmonics(7)(v / r)
    for degree, found in enumerate(SolidHarmonics(7)(v[:, [1, 2, 0]])):
        racah = np.sqrt(4 * np.pi / (2 * degree + 1))
        expected = reference[:, degree * degree : (degree + 1) ** 2] * r**degree * racah
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
