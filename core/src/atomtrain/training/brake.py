"""What happens where a loss blows up: the epoch is taken back, and done again with smaller steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger("atomtrain")
JUMP = 10.0
"""times its lowest level so far that a loss may rise to, at least"""
MOST = 8
"""times one epoch is taken back before the training gives up"""


class Brake:
    """Judges epochs by the losses of their steps, and gives back the weights of the last good one.

    An epoch is bad if a loss or a weight is not finite, or if the **level** of the loss, the median over the second
    half of its steps, rises more than tenfold above the lowest so far and loses half of what was gained (in orders of
    magnitude). Single steps may be what they like: data have outliers, and most spikes mend themselves.

    Part of the state of a training: ``factor`` on the learning rate, and the levels.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.factor = 1.0
        self.first = self.lowest = math.inf
        self._level = math.nan
        self._taken_back = 0
        self._kept: dict[str, Any] = {}
        self._weights: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}

    def keep(self, parts: Mapping[str, Any]) -> None:
        """Remember the model and the ``parts`` (optimiser, averages: what has a state), to be taken back to."""
        self._parts = {k: part for k, part in parts.items() if hasattr(part, "load_state_dict")}
        self._kept = {k: _copied(part.state_dict()) for k, part in self._parts.items()}
        self._weights = _copied(self.model.state_dict())
        self._taken_back = 0

    @torch.no_grad()
    def holds(self, losses: Sequence[float]) -> bool:
        """Whether the epoch is a good one that had these ``losses`` in its steps, the same in all processes."""
        weights: list[Tensor] = [p for p in self.model.parameters() if p.numel()]
        finite = torch.stack(torch._foreach_norm(weights)).isfinite().all() if weights else True
        self._level = median(losses[len(losses) // 2 :]) if losses else 0.0
        return all(map(math.isfinite, losses)) and bool(finite) and self._level <= self._limit()

    def release(self) -> None:
        """The epoch is over, and was a good one."""
        if self.first == math.inf:
            self.first = self._level
        self.lowest = min(self.lowest, self._level)
        self._kept, self._weights, self._parts = {}, {}, {}

    def _limit(self) -> float:
        if self.lowest == math.inf:
            return math.inf
        return max(JUMP * self.lowest, math.sqrt(max(self.first * self.lowest, 0.0)))

    def take_back(self, epoch: int, rate: float) -> bool:
        """Give back what was kept, and halve the learning ``rate``; False where that was done too often."""
        self._taken_back += 1
        if self._taken_back > MOST:
            return False
        self.factor /= 2.0
        self.model.load_state_dict(self._weights)
        for name, part in self._parts.items():
            part.load_state_dict(_copied(self._kept[name]))
        what = f"{self._level:.3g}" if math.isfinite(self._level) else "infinite or no number"
        lowest = "" if self.lowest == math.inf else f", after {self.lowest:.3g}"
        log.warning(
            f"epoch {epoch}: the training loss became {what}{lowest}; the epoch is taken back and done again with half "
            f"the learning rate ({rate * self.factor:.3g} where the options say {rate:g}). A lower "
            "architecture.training.learning_rate saves that, and so does looking for labels that are far off"
        )
        return True

    def state_dict(self) -> dict[str, float]:
        """The factor on the learning rate, and the levels."""
        return {"factor": self.factor, "first": self.first, "lowest": self.lowest}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take up :meth:`state_dict`."""
        self.factor, self.first, self.lowest = state["factor"], state["first"], state["lowest"]


def _copied(value: Any) -> Any:
    """Copies of the tensors in nested data; the optimiser's own keep changing."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return type(value)((k, _copied(v)) for k, v in value.items())
    if isinstance(value, list):
        return [_copied(v) for v in value]
    return value
