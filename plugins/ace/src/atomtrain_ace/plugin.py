"""What atomtrain asks of ACE. Imports torch only where a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomtrain.contract import ArchitectureInfo, BuildContext, Person, hookimpl
from atomtrain.errors import CheckpointError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.targets import DatasetInfo
    from atomtrain.training.run import TrainingOutcome, TrainingRun
    from atomtrain_ace.hypers import ModelHypers
    from atomtrain_ace.model import Ace

_TEAM = Person("The atomtrain developers", handle="atomtrain")


def _model_hypers() -> type[BaseModel]:
    from atomtrain_ace.hypers import ModelHypers

    return ModelHypers


def _trainer_hypers() -> type[BaseModel]:
    from atomtrain_ace.hypers import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    """The identity card of ACE."""
    return ArchitectureInfo(
        name="ace",
        summary="products of an atom's density: accurate potentials in minutes",
        description=(
            "Every atom's neighbourhood is expanded in radial functions and spherical harmonics. Learnt "
            "combinations of these are multiplied as functions on the sphere, so that features see "
            "two to four neighbours at a time; normalised once, they feed a linear part and a small "
            "network. As quick to train as SOAP-BPNN and far more accurate for potentials."
        ),
        stage="experimental",
        model_version=2,
        model_hypers=_model_hypers,
        trainer_hypers=_trainer_hypers,
        authors=(_TEAM,),
        maintainers=(_TEAM,),
        references={
            "architecture": (
                "Atomic cluster expansion: https://doi.org/10.1103/PhysRevB.99.014104",
                "Products on the sphere: https://doi.org/10.48550/arXiv.2401.10216",
            ),
        },
        devices=("cuda", "cpu"),
        dtypes=("float32", "float64"),
        target_kinds=("scalar", "cartesian", "spherical"),
    )


@hookimpl
def build_model(hypers: ModelHypers, dataset_info: DatasetInfo, context: BuildContext) -> Ace:
    """The torch module."""
    from atomtrain_ace.model import Ace

    return Ace(hypers, dataset_info)


@hookimpl
def train_model(model: Ace, run: TrainingRun) -> TrainingOutcome:
    """The core's engine with an optimiser that fits."""
    from atomtrain.training.engine import train
    from atomtrain_ace.training import Trainer

    return train(model, run, Trainer)


@hookimpl
def upgrade_checkpoint(checkpoint: dict[str, Any], part: str, from_version: int) -> dict[str, Any]:
    """Version 1 of two layers sent other messages, which version 2 cannot take over; one layer is as it was."""
    if checkpoint["hypers"]["model"].get("num_layers", 1) > 1:
        raise CheckpointError(
            "messages between two layers have changed since, and these weights say nothing of the new ones; "
            "train anew. The exported model of that training goes on working"
        )
    return checkpoint
