"""Normal equations against least squares as numpy does them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atomtrain_linear import fit as module
from atomtrain_linear.fit import CONSTANTS, NormalEquations, Weighted

N, RIDGE = 7, 1e-3
WEIGHTS = {"values": 30.0, "forces": 2.0}


def data() -> dict[str, tuple[Tensor, Tensor]]:
    made = {}
    for kind, m in (("values", 9), ("forces", 40)):
        generator = torch.Generator().manual_seed(m)
        x = torch.randn(m, N, generator=generator, dtype=torch.float64)
        made[kind] = x, torch.randn(m, generator=generator, dtype=torch.float64)
    return made


@pytest.fixture
def equations(monkeypatch: pytest.MonkeyPatch) -> Weighted:
    monkeypatch.setattr(module, "BLOCK", 3)
    made = NormalEquations(N, list(WEIGHTS), torch.device("cpu"))
    for kind, (x, y) in data().items():
        made.add(kind, x[:5], y[:5])
        made.add(kind, x[5:], y[5:])
    return made.weighted(WEIGHTS)


def as_one() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and labels with their weights, and the ridge of each coefficient."""
    sizes = {kind: (WEIGHTS[kind] / len(y)) ** 0.5 for kind, (_, y) in data().items()}
    x = np.concatenate([sizes[kind] * x.numpy() for kind, (x, _) in data().items()])
    y = np.concatenate([sizes[kind] * y.numpy() for kind, (_, y) in data().items()])
    penalty = np.full(N, RIDGE)
    penalty[-2:] = CONSTANTS
    return x, y, penalty


def test_coefficients_are_those_of_least_squares(equations: Weighted) -> None:
    x, y, penalty = as_one()
    whole = np.concatenate([x, np.diag(np.sqrt(penalty))])
    expected, *_ = np.linalg.lstsq(whole, np.concatenate([y, np.zeros(N)]), rcond=None)
    solution = equations.solve(RIDGE, n_constants=2)
    np.testing.assert_allclose(solution.coefficients, expected, rtol=1e-9)
    np.testing.assert_allclose(solution.loss, np.square(x @ expected - y).sum(), rtol=1e-9)
    np.testing.assert_allclose(
        solution.factor @ solution.factor.T, x.T @ x + np.diag(penalty), rtol=1e-9
    )


def test_evidence_is_that_of_the_gaussian_the_labels_are_drawn_from(equations: Weighted) -> None:
    """Labels are normal with covariance ``s (1 + X P^-1 X^T)``, s being what makes them likeliest."""
    x, y, penalty = as_one()
    matrix = np.eye(len(y)) + x @ np.diag(1.0 / penalty) @ x.T
    size = y @ np.linalg.solve(matrix, y)
    expected = -0.5 * (len(y) * np.log(size) + np.linalg.slogdet(matrix)[1])
    assert equations.solve(RIDGE, 2).evidence == pytest.approx(expected, rel=1e-9)


def test_a_ridge_below_rounding_is_raised() -> None:
    made = NormalEquations(3, ["values"], torch.device("cpu"))
    x = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]], dtype=torch.float64)
    made.add("values", 1e8 * x, torch.ones(2, dtype=torch.float64))
    solution = made.weighted({"values": 1.0}).solve(1e-12, 0)
    assert solution.ridge > 1e-12
    assert bool(solution.coefficients.isfinite().all())
