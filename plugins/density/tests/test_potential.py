"""Scalars that are told their slopes."""

from __future__ import annotations

import pytest
import torch

from atomtrain_density.potential import with_slopes


@pytest.mark.parametrize("compiled", [False, True])
def test_second_derivatives_are_refused(compiled: bool) -> None:
    """For every pair, also beside something that has some: their sum would be taken for that of both."""
    function = torch.jit.script(with_slopes) if compiled else with_slopes
    centers = torch.tensor([0, 1, 0])
    slopes = torch.tensor([[1.0, 0, 2], [0, 0, 0], [3, 1, 0]])
    for n_pairs in (3, 0):
        vectors = torch.ones(n_pairs, 3, requires_grad=True)
        y = torch.tensor([[5.0], [7.0]])
        found = function(y, slopes[:n_pairs], vectors, centers[:n_pairs])
        assert torch.equal(found, y)
        total = found.sum() + vectors.pow(3).sum()
        (first,) = torch.autograd.grad(total, vectors, create_graph=True)
        assert torch.equal(first, slopes[:n_pairs] + 3.0)
        for k in range(n_pairs):
            with pytest.raises(RuntimeError, match="derivative for '_cdist_backward' is not impl"):
                torch.autograd.grad(first[k, 1], vectors, retain_graph=True)
