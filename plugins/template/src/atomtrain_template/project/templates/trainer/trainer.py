"""How the model is trained: the core's engine with steps of its own.

A trainer that takes no steps along gradients goes through ``run.session()`` instead, on which the
engine stands, too (``atomtrain new --level fit`` writes one).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from atomtrain.training import engine

if TYPE_CHECKING:
    from atomtrain.model import Model
    from atomtrain.training.run import TrainingOutcome, TrainingRun

    from {{ cookiecutter.package }}.hypers import TrainerHypers


def train(model: Model, run: TrainingRun) -> TrainingOutcome:
    """Train ``model``, the one inside ``run.predictor``."""
    return engine.train(model, run, Trainer)


class Trainer(engine.Engine):
    """Gradients are limited tensor by tensor, relative to the weights they change."""

    hypers: TrainerHypers

    def build_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Adam with Nesterov's momentum."""
        hypers = self.hypers
        return torch.optim.NAdam(groups, lr=hypers.learning_rate, weight_decay=hypers.weight_decay)

    @torch.no_grad()
    def step(self) -> None:
        """One step; the gradients are there, summed over all processes."""
        for weight in self.parameters:
            if weight.grad is not None:
                limit = self.hypers.clip_ratio * weight.norm().clamp(min=1e-2)
                weight.grad.mul_((limit / weight.grad.norm().clamp(min=1e-12)).clamp(max=1.0))
        self.optimizer.step()
