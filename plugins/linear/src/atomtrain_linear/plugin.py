"""What atomtrain asks of the linear potential. Imports torch only where a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomtrain.contract import ArchitectureInfo, BuildContext, Person, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.targets import DatasetInfo
    from atomtrain.training.run import TrainingOutcome, TrainingRun
    from atomtrain_linear.hypers import ModelHypers
    from atomtrain_linear.model import Linear

_TEAM = Person("The atomtrain developers", handle="atomtrain")


def _model_hypers() -> type[BaseModel]:
    from atomtrain_linear.hypers import ModelHypers

    return ModelHypers


def _trainer_hypers() -> type[BaseModel]:
    from atomtrain_linear.hypers import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    """The identity card of the linear potential."""
    return ArchitectureInfo(
        name="linear",
        summary="least squares on products of an atom's density: a potential within seconds",
        description=(
            "Energies are linear in invariant features of two to five bodies, and the coefficients are found in "
            "closed form, by ridge regression on energies, forces and stress at once. No learning rate, no epochs; "
            "more structures are added without starting over, and the covariance of the coefficients gives "
            "the uncertainty of every energy."
        ),
        stage="experimental",
        model_hypers=_model_hypers,
        trainer_hypers=_trainer_hypers,
        authors=(_TEAM,),
        maintainers=(_TEAM,),
        references={
            "architecture": (
                "Atomic cluster expansion: https://doi.org/10.1103/PhysRevB.99.014104",
                "Random channels: https://doi.org/10.1103/PhysRevLett.131.028001",
            ),
        },
        devices=("cuda", "cpu"),
        dtypes=("float32", "float64"),
        target_kinds=("scalar",),
    )


@hookimpl
def build_model(hypers: ModelHypers, dataset_info: DatasetInfo, context: BuildContext) -> Linear:
    """The torch module."""
    from atomtrain_linear.model import Linear

    return Linear(hypers, dataset_info)


@hookimpl
def train_model(model: Linear, run: TrainingRun) -> TrainingOutcome:
    """Least squares."""
    from atomtrain_linear.trainer import Fit

    return Fit(model, run).train()
