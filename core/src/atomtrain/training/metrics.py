"""Errors in physical units, summed over batches without ever leaving the device."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from atomtrain.targets import DatasetInfo


class ErrorSums:
    """Sums of squared and absolute errors of each label key, and how many entries they cover.

    ``keys`` are label keys (``energy``, ``energy:forces``, ``energy:strain``). Per-structure
    targets count per atom; the strain derivative counts as stress (over volume, periodic
    structures only). ``blocks`` are columns of labels to be counted apart as well, by a key of
    their own (see :func:`block_columns`).
    """

    def __init__(
        self,
        keys: list[str],
        device: torch.device,
        blocks: Mapping[str, Mapping[str, slice]] | None = None,
    ) -> None:
        self.parts: dict[str, dict[str, slice]] = {
            key: {key: slice(None), **(blocks or {}).get(key, {})} for key in keys
        }
        self.keys = [part for parts in self.parts.values() for part in parts]
        # [n_keys, 3]: sum of squares, sum of absolutes, count
        self.sums = torch.zeros((len(self.keys), 3), dtype=torch.float64, device=device)

    def add(self, key: str, error: Tensor, mask: Tensor | None) -> None:
        """Add ``error [n_samples, width]`` (prediction minus label) of one batch."""
        error = error.detach().to(torch.float64)
        if mask is not None:
            error = error * mask
        for part, columns in self.parts[key].items():
            row, here = self.sums[self.keys.index(part)], error[:, columns]
            row[0] += here.square().sum()
            row[1] += here.abs().sum()
            row[2] += here.numel() if mask is None else mask[:, columns].sum()

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


def block_columns(dataset_info: DatasetInfo) -> dict[str, dict[str, slice]]:
    """Where the blocks of targets with several are in a label, ``{target: {"name (l=1, s=1)": ...}}``."""
    columns: dict[str, dict[str, slice]] = {}
    for name, target in dataset_info.targets.items():
        start = 0
        for block in target.blocks if len(target.blocks) > 1 else ():
            part = slice(start, start + block.width)
            columns.setdefault(name, {})[f"{name} ({block.title})"] = part
            start += block.width
    return columns


def score(metric: str, loss: float, errors: dict[str, dict[str, float]]) -> float:
    """The number the best model has the smallest of: ``rmse_prod``, ``mae_prod`` or ``loss``.

    The products run over all ``errors`` of which there are any, gradients included.
    """
    if metric == "loss":
        return loss
    kind = metric.removesuffix("_prod")
    return math.prod(e[kind] for e in errors.values() if e["count"] > 0)
