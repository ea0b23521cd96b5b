"""What happens where a loss becomes no number: calmer weights are taken back, and steps get smaller."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger("atomtrain")
JUMP = 10.0
"""times its lowest level so far that a loss may have in a calm epoch"""
MOST = 8
"""times one epoch is done again before the training gives up"""


class Brake:
    """Keeps the weights of the last calm epoch, for the case that a loss or a weight becomes infinite or no number.

    An epoch is calm if the **level** of its loss, the median over the second half of its steps, is below ten times the
    lowest so far. What is kept of an epoch that is not would bring back weights that are lost already. Only numbers
    that are none start anything: losses of small data, or of few steps, jump and come down by themselves.

    Part of the state of a training: ``factor`` on the learning rate, and the lowest level.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.factor = 1.0
        self.lowest = math.inf
        self._level = 0.0
        self._again = 0
        self._calm = True
        self._epoch = 0
        self._kept: list[tuple[Any, Any]] = []

    def keep(self, epoch: int, parts: Sequence[Any]) -> None:
        """Before an ``epoch``: remember the model and the ``parts``, which have a ``state_dict`` as well."""
        self._again = 0
        if self._calm:
            self._epoch = epoch
            self._kept = [(one, copy.deepcopy(one.state_dict())) for one in (self.model, *parts)]

    @torch.no_grad()
    def holds(self, losses: Sequence[float]) -> bool:
        """Whether the ``losses`` of an epoch's steps, the same in all processes, and the weights are numbers."""
        weights: list[Tensor] = [p for p in self.model.parameters() if p.numel()]
        finite = torch.stack(torch._foreach_norm(weights)).isfinite().all() if weights else True
        self._level = median(losses[len(losses) // 2 :]) if losses else 0.0
        return all(map(math.isfinite, losses)) and bool(finite)

    def release(self) -> None:
        """The epoch is over, and all were numbers."""
        self._calm = self._level <= JUMP * self.lowest
        self.lowest = min(self.lowest, self._level)

    def take_back(self, epoch: int, rate: float) -> bool:
        """Give back what was kept, and halve the learning ``rate``; False where that was done too often."""
        self._again += 1
        if self._again > MOST:
            return False
        self.factor /= 2.0
        for one, state in self._kept:
            one.load_state_dict(copy.deepcopy(state))
        since = "its beginning" if self._epoch == epoch else f"the beginning of epoch {self._epoch}"
        log.warning(
            f"epoch {epoch}: the training loss became infinite or no number; the weights of {since} are taken back, "
            f"and the epoch is done again with half the learning rate ({rate * self.factor:.3g} where the options say "
            f"{rate:g}). A lower architecture.training.learning_rate saves that, if no label is far off"
        )
        return True

    def state_dict(self) -> dict[str, float]:
        """The factor on the learning rate, and the lowest level."""
        return {"factor": self.factor, "lowest": self.lowest}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take up :meth:`state_dict`."""
        self.factor, self.lowest = state["factor"], state["lowest"]
