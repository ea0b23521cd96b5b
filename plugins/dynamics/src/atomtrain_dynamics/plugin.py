"""What atomtrain asks. Imports neither ASE nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atomtrain.contract import ComponentSpec, hookimpl


def _load() -> Any:
    from atomtrain_dynamics.evaluation import DynamicsEvaluation

    return DynamicsEvaluation


@hookimpl
def register_evaluations() -> Iterable[ComponentSpec]:
    """``final_eval: {dynamics: {temperature: 300, time: 5 ps}}``."""
    yield ComponentSpec("dynamics", "molecular dynamics from frames of the data", _load)
