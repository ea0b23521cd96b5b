"""What atomtrain asks of LLPR. Imports torch only where a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomtrain.contract import ArchitectureInfo, BuildContext, Person, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.model import Model, Predictor
    from atomtrain.targets import DatasetInfo
    from atomtrain.training.run import TrainingOutcome, TrainingRun
    from atomtrain_llpr.hypers import ModelHypers

_TEAM = Person("The atomtrain developers", handle="atomtrain")


def _model_hypers() -> type[BaseModel]:
    from atomtrain_llpr.hypers import ModelHypers

    return ModelHypers


def _trainer_hypers() -> type[BaseModel]:
    from atomtrain_llpr.hypers import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    """The identity card of LLPR."""
    return ArchitectureInfo(
        name="llpr",
        summary="uncertainties of a trained model, from the features before its last layer",
        description=(
            "The covariance of the features that the last layer of a trained model takes, over its training set, "
            "gives the standard deviation of every prediction (last-layer prediction rigidity), calibrated on the "
            "validation set. Nothing is trained: it takes a pass over the data. Members of an ensemble are "
            "drawn from the same distribution of last layers. Predictions stay those of the model."
        ),
        stage="experimental",
        model_hypers=_model_hypers,
        trainer_hypers=_trainer_hypers,
        authors=(_TEAM,),
        maintainers=(_TEAM,),
        references={
            "implementation": (),
            "architecture": (
                "Last-layer prediction rigidity: https://doi.org/10.1088/2632-2153/ad805f",
                "Shallow ensembles: https://doi.org/10.1088/2632-2153/ad594a",
            ),
        },
        devices=("cuda", "cpu"),
        dtypes=("float32", "float64"),
        target_kinds=("scalar",),
    )


@hookimpl
def build_model(hypers: ModelHypers, dataset_info: DatasetInfo, context: BuildContext) -> Model:
    """The model that the options or the checkpoint bring, with uncertainties that are not calibrated yet."""
    from atomtrain.training.backbone import open_backbone
    from atomtrain_llpr.model import Llpr

    backbone = open_backbone(context, dataset_info, hyper="model_checkpoint", features=False)
    return Llpr(hypers, dataset_info, backbone)


@hookimpl
def train_model(model: Model, run: TrainingRun) -> TrainingOutcome:
    """One pass over the training set, and one over the validation set."""
    from atomtrain_llpr.trainer import Fit

    return Fit(model, run).train()


@hookimpl
def export_model(predictor: Predictor, metadata: dict[str, Any]) -> Any:
    """The core's wrapper, on the devices of the model inside and with its references."""
    from atomtrain_llpr.trainer import export

    return export(predictor, metadata)
