"""Errors in physical units, summed over batches without ever leaving the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atomtrain.targets import DatasetInfo


class ErrorSums:
    """Sums of squared and absolute errors of each label key, and how many entries they cover.

    ``keys`` are label keys (``energy``, ``energy:forces``, ``energy:strain``). Per-structure
    targets count per atom; the strain derivative counts as stress (over volume, periodic
    structures only).
    """

    def __init__(self, keys: list[str], device: torch.device) -> None:
        self.keys = keys
        # [n_keys, 3]: sum of squares, sum of absolutes, count
        self.sums = torch.zeros((len(keys), 3), dtype=torch.float64, device=device)

    def add(self, key: str, error: Tensor, mask: Tensor | None) -> None:
        """Add ``error [n_samples, width]`` (prediction minus label) of one batch."""
        error = error.detach().to(torch.float64)
        row = self.sums[self.keys.index(key)]
        if mask is None:
            row[2] += error.numel()
        else:
            error = error * mask
            row[2] += mask.sum()
        row[0] += error.square().sum()
        row[1] += error.abs().sum()

    def results(self) -> dict[str, dict[str, float]]:
        """``{key: {"rmse": ..., "mae": ..., "count": ...}}``; nan where nothing was counted."""
        values = {}
        for key, (squares, absolutes, count) in zip(self.keys, self.sums.tolist(), strict=True):
            values[key] = {
                "rmse": math.sqrt(squares / count) if count else math.nan,
                "mae": absolutes / count if count else math.nan,
                "count": count,
            }
        return values


def label_keys(dataset_info: DatasetInfo) -> list[str]:
    """All label keys of the targets, in order."""
    keys = []
    for name, target in dataset_info.targets.items():
        keys += [name] + [f"{name}:{gradient}" for gradient in target.gradients]
    return keys


def score(metric: str, loss: float, errors: dict[str, dict[str, float]]) -> float:
    """The number the best model has the smallest of: ``rmse_prod``, ``mae_prod`` or ``loss``.

    The products run over all validation errors there are, gradients included.
    """
    if metric == "loss":
        return loss
    kind = metric.removesuffix("_prod")
    return math.prod(e[kind] for e in errors.values() if e["count"] > 0)
