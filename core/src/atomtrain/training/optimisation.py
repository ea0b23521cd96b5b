"""Optimiser, learning rate schedule and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
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


class EpochSchedule:
    """One of torch's schedulers, stepped after every epoch; only its factor is taken.

    It drives an optimiser of its own with learning rate 1, so that groups with different rates,
    freezing and warmup go on as without it.
    """

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self._own = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        self._schedule = getattr(torch.optim.lr_scheduler, name)(self._own, **arguments)
        self._wants_loss = name == "ReduceLROnPlateau"

    @property
    def factor(self) -> float:
        """Factor on all learning rates in this epoch."""
        return float(self._own.param_groups[0]["lr"])

    def step(self, validation_loss: float) -> None:
        """An epoch is done."""
        self._own.step()  # torch warns of schedules that run ahead of their optimiser
        if self._wants_loss:
            self._schedule.step(validation_loss)
        else:
            self._schedule.step()

    def state(self) -> dict[str, Any]:
        """What a restart needs, as plain data."""
        plain = (bool, int, float, str, list, type(None))
        kept = {k: v for k, v in self._schedule.state_dict().items() if isinstance(v, plain)}
        return {"schedule": kept, "factor": self.factor}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._schedule.load_state_dict(state["schedule"])
        self._own.param_groups[0]["lr"] = state["factor"]


def check_scheduler(name: str, arguments: dict[str, Any]) -> None:
    """Raise ValueError unless torch has this scheduler and it takes these arguments."""
    known = [
        n
        for n, c in vars(torch.optim.lr_scheduler).items()
        if isinstance(c, type) and issubclass(c, torch.optim.lr_scheduler.LRScheduler)
        and not n.startswith("_") and n not in ("LRScheduler", "LambdaLR", "MultiplicativeLR",
                                                "SequentialLR", "ChainedScheduler")
    ]  # fmt: skip
    if name not in known:
        raise ValueError(f"torch has no scheduler '{name}' (it has {', '.join(sorted(known))})")
    try:
        EpochSchedule(name, arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"scheduler {name}: {error}") from None


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
