"""torch's learning rate schedules, stepped every epoch."""

from __future__ import annotations

from typing import Any

import torch


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

    def step(self, loss: float) -> None:
        """An epoch is done, with this loss in validation (in training where there is no validation)."""
        self._own.step()  # torch warns of schedules that run ahead of their optimiser
        if self._wants_loss:
            self._schedule.step(loss)
        else:
            self._schedule.step()

    def forget_best(self) -> None:
        """Losses are no longer comparable with those seen so far."""
        if self._wants_loss:
            self._schedule.best = self._schedule.mode_worse
            self._schedule.num_bad_epochs = 0

    def state_dict(self) -> dict[str, Any]:
        """What a restart needs, as plain data."""
        plain = (bool, int, float, str, list, type(None))
        kept = {k: v for k, v in self._schedule.state_dict().items() if isinstance(v, plain)}
        return {"schedule": kept, "factor": self.factor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
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
