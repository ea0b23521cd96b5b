"""What atomtrain asks. Imports neither wandb nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atomtrain.contract import ComponentSpec, hookimpl


def _load() -> Any:
    from atomtrain_wandb.observer import WandbObserver

    return WandbObserver


@hookimpl
def register_observers() -> Iterable[ComponentSpec]:
    """The logger that ``wandb:`` in the options asks for."""
    yield ComponentSpec("wandb", "logs to Weights & Biases", _load)
