"""What differs from the core's engine."""

from __future__ import annotations

import pytest
import torch

from atomtrain_ace.training import ByWidth


@pytest.mark.parametrize(("n_in", "n_out"), [(16, 16), (16, 256), (512, 32)])
def test_steps_go_by_the_width_of_a_matrix(n_in: int, n_out: int) -> None:
    """Numbers of size 1, along the step, change what comes out by the learning rate."""
    torch.manual_seed(0)
    before = torch.randn(n_in, n_out, dtype=torch.float64)
    weight = torch.nn.Parameter(before.clone())
    optimizer = ByWidth([{"params": [weight]}], lr=0.01)
    (torch.randn(1000, n_in, dtype=torch.float64) @ weight).sin().sum().backward()
    optimizer.step()
    u, sizes, _ = torch.linalg.svd(before - weight.detach(), full_matrices=False)
    assert float(sizes.min()) * (n_in / n_out) ** 0.5 > 0.006
    assert float(sizes.max()) * (n_in / n_out) ** 0.5 < 0.013
    x = u[:, 0] * n_in**0.5  # numbers of size 1
    change = x @ (before - weight.detach()) / n_out**0.5
    assert 0.006 < float(change.norm()) < 0.013
