"""The core's own answers to the architecture hooks, asked where a plugin does not answer.

Imports are inside the functions: describing an architecture needs neither torch nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomtrain.contract.hookspecs import hookimpl
from atomtrain.errors import CheckpointError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.model.base import Model
    from atomtrain.model.predictor import Predictor
    from atomtrain.training.run import TrainingOutcome, TrainingRun


@hookimpl(trylast=True)
def train_model(model: Model, run: TrainingRun) -> TrainingOutcome:
    """The core's engine."""
    from atomtrain.training.engine import train

    return train(model, run)


@hookimpl(trylast=True)
def upgrade_checkpoint(checkpoint: dict[str, Any], part: str, from_version: int) -> dict[str, Any]:
    """No step is known: say which one is missing."""
    raise CheckpointError(
        f"the plugin has no step from version {from_version} to {from_version + 1} of its {part}"
    )


@hookimpl(trylast=True)
def export_model(predictor: Predictor, metadata: dict[str, Any]) -> Any:
    """The core's wrapper."""
    from atomtrain.model.export import export_predictor

    return export_predictor(predictor, metadata)


def trainer_hypers() -> type[BaseModel]:
    """The hypers of the core's engine; no hook, but asked for in the same way."""
    from atomtrain.options import TrainerHypers

    return TrainerHypers
