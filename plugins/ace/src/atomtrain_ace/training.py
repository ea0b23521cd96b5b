"""The core's engine, with steps of Muon that are right for any number of channels."""

from __future__ import annotations

import math
from typing import Any

import torch

from atomtrain.training.engine import Engine
from atomtrain.training.optimisation import Muon


class Trainer(Engine):
    """Where the optimiser is Muon, a matrix changes what it gives by the same part, however wide it is."""

    def build_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """See :meth:`Engine.build_optimizer`."""
        if self.hypers.optimizer != "muon":
            return super().build_optimizer(groups)
        return ByWidth(groups, lr=self.hypers.learning_rate, weight_decay=self.hypers.weight_decay)


class ByWidth(Muon):
    """Steps of a matrix ``W [n_in, n_out]``, as in ``x W``, have singular values of ``sqrt(n_out / n_in)``.

    ``x`` has n_in numbers of size 1, and ``x W`` n_out of them. Where x lies along the step, these change by the
    learning rate, for any n_in and n_out (G. Yang, J. B. Simon, J. Bernstein, arXiv:2310.17813). Steps as large as
    Adam's grow with both.
    """

    def step_size(self, m: int, n: int) -> float:
        """See :meth:`Muon.step_size`."""
        return math.sqrt(n / m)
