"""Optimiser, learning rate and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from atomtrain.options import TrainerHypers


def build_optimizer(
    groups: list[dict[str, object]], hypers: TrainerHypers
) -> torch.optim.Optimizer:
    """Adam or AdamW, fused: one kernel for all parameters, and repeatable."""
    kind = torch.optim.AdamW if hypers.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=hypers.learning_rate, weight_decay=hypers.weight_decay, fused=True)


def learning_rate_factor(
    step: int, total_steps: int, warmup_fraction: float, scheduler: str
) -> float:
    """Factor on the learning rate at ``step``: linear warmup, then cosine to zero or none.

    A pure function of the step, so that restarts need no state.
    """
    warmup = int(warmup_fraction * total_steps)
    if step < warmup:
        return step / warmup
    if scheduler != "cosine":
        return 1.0
    progress = (step - warmup) / max(1, total_steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


class AveragedWeights:
    """Exponential moving average of the parameters: ``average = decay average + (1 - decay) w``."""

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.average = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the current weights."""
        torch._foreach_lerp_(self.average, self.parameters, 1.0 - self.decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averaged and current weights (call it again to go back)."""
        for p, average in zip(self.parameters, self.average, strict=True):
            current = p.clone()
            p.copy_(average)
            average.copy_(current)
