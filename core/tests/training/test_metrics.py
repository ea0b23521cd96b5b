"""Errors and scores of a pass."""

from __future__ import annotations

import math

import torch

from atomtrain.training.metrics import ErrorSums, score


def test_errors_and_scores() -> None:
    sums = ErrorSums(["a", "b"], torch.device("cpu"))
    sums.add("a", torch.tensor([[3.0], [4.0]]), None)
    sums.add("a", torch.tensor([[100.0], [5.0]]), torch.tensor([[False], [True]]))
    results = sums.results()
    assert results["a"] == {"rmse": math.sqrt(50 / 3), "mae": 4.0, "count": 3.0}
    assert results["b"]["count"] == 0 and math.isnan(results["b"]["rmse"])
    assert score("mae_prod", 0.0, results) == 4.0
    assert score("loss", 7.0, results) == 7.0
