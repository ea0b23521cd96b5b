"""What atomtrain asks. Imports neither tensorboard nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atomtrain.contract import ComponentSpec, hookimpl


def _load() -> Any:
    from atomtrain_tensorboard.observer import TensorboardObserver

    return TensorboardObserver


@hookimpl
def register_observers() -> Iterable[ComponentSpec]:
    """The logger that ``observers: tensorboard`` in the options asks for."""
    yield ComponentSpec("tensorboard", "logs for TensorBoard", _load)
