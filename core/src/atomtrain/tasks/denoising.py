"""Denoising: noise is added to the positions, and the model says which.

The model sees the noisy structure only. At a minimum of the energy the noise is, to first order, a
force (Zaidi et al., https://arxiv.org/abs/2206.00133): a way to train an encoder without labels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from atomtrain.sections import Section
from atomtrain.targets import TargetInfo
from atomtrain.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

    from atomtrain.frame import Frame


class DenoisingArguments(Section):
    """What may follow ``denoising``."""

    scale: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the noise along each axis, in the length unit of the data."""
    normalize: bool = False
    """Whether the label is the noise over ``scale`` rather than the noise."""


class Denoising(Task):
    """A vector per atom, the noise in its position.

    The mean over a structure is taken off the noise: no model can see it. Noise of training is new
    in every epoch, that of other sets always the same, both fixed by the seed.
    """

    kind = "denoising"
    arguments = DenoisingArguments
    losses = ("mse", "mae", "huber")
    shown = ("rmse", "relative rmse", "cosine")

    def complete(self, info: TargetInfo) -> TargetInfo:
        arguments = DenoisingArguments.model_validate(info.extra)
        return replace(
            info,
            layout="cartesian",
            rank=1,
            per_atom=True,
            num_subtargets=1,
            extra=arguments.model_dump(),
        )

    def computes_labels(self, info: TargetInfo, given: bool) -> bool:
        return True

    def row(self, value: Any, info: TargetInfo, structure: Frame) -> np.ndarray:
        """Room for the noise, which is drawn when batches are made."""
        return np.zeros((len(structure.numbers), 3))

    def describe_labels(self, values: Tensor, mask: Tensor | None, info: TargetInfo) -> str:
        return ""  # they are made with the batches

    def input_noise(self, info: TargetInfo) -> float:
        return float(info.extra["scale"])

    def fixed_scale(self, info: TargetInfo) -> float:
        return 1.0 if info.extra["normalize"] else float(info.extra["scale"])

    def error_unit(self, info: TargetInfo, length: str) -> str:
        return info.unit if info.extra["normalize"] else length

    def metric_size(self, info: TargetInfo) -> int:
        return 5

    def metric_sums(
        self, prediction: Tensor, label: Tensor, mask: Tensor | None, info: TargetInfo
    ) -> Tensor:
        import torch

        if mask is not None:
            prediction, label = prediction[mask[:, 0]], label[mask[:, 0]]
        error = prediction - label
        cosine = torch.nn.functional.cosine_similarity(prediction, label, dim=1)
        return torch.stack(
            [
                error.square().sum(),
                error.abs().sum(),
                label.square().sum(),
                cosine.sum(),
                torch.full_like(error[:, 0], 1.0).sum(),
            ]
        ).to(torch.float64)

    def metrics(self, sums: Tensor, info: TargetInfo) -> dict[str, float]:
        squares, absolutes, noise, cosine, count = sums.tolist()
        n = max(count, 1.0)
        return {
            "rmse": float((squares / (3 * n)) ** 0.5),
            "mae": absolutes / (3 * n),
            "relative rmse": float((squares / noise) ** 0.5) if noise > 0 else float("nan"),
            "cosine": cosine / n,
            "count": 3 * count,
        }
