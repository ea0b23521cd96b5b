"""What happens where a loss blows up or becomes no number: calmer weights are taken back, and steps get smaller."""

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
LOST = 1e6
"""times the loss before the first step: from there on a number is as good as none"""
MOST = 8
"""times one epoch is done again before the training gives up"""


class Brake:
    """Keeps the weights of the last calm epoch, for the case that a loss or a weight becomes infinite or no number.

    The **level** of a loss is the median over the second half of an epoch's steps. One that is a million times the loss
    before the first step is no number either: nothing was learnt, and nothing will be. Smaller jumps start nothing:
    losses of small data, or of few steps, come down by themselves. But an epoch whose level is ten times the lowest so
    far is not calm, and is not kept: it would bring back weights that may be lost already.

    Part of the state of a training: ``factor`` on the learning rate, the first loss, and the lowest level.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.factor = 1.0
        self.first = self.lowest = math.inf
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
        if self.first == math.inf and losses and math.isfinite(losses[0]):
            self.first = losses[0]
        lost = self.first > 0.0 and self._level > LOST * self.first
        return all(map(math.isfinite, losses)) and bool(finite) and not lost

    def forget(self) -> None:
        """Losses are of other data, or counted otherwise, from now on."""
        self.first = self.lowest = math.inf

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
            f"epoch {epoch}: the training loss became infinite, no number, or a million times the first; the weights "
            f"of {since} are taken back, and the epoch is done again with half the learning rate "
            f"({rate * self.factor:.3g} where the options say {rate:g}). A lower "
            "architecture.training.learning_rate saves that, if no label is far off"
        )
        return True

    def state_dict(self) -> dict[str, float]:
        """The factor on the learning rate, the first loss, and the lowest level."""
        return {"factor": self.factor, "first": self.first, "lowest": self.lowest}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take up :meth:`state_dict`."""
        self.factor, self.first, self.lowest = state["factor"], state["first"], state["lowest"]
