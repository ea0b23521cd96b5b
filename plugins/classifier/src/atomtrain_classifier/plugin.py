"""What atomtrain asks of the classifier. Imports torch only where a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomtrain.contract import ArchitectureInfo, BuildContext, Person, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.model import Model, Predictor
    from atomtrain.targets import DatasetInfo
    from atomtrain.training.run import TrainingOutcome, TrainingRun
    from atomtrain_classifier.hypers import ModelHypers

_TEAM = Person("The atomtrain developers", handle="atomtrain")


def _model_hypers() -> type[BaseModel]:
    from atomtrain_classifier.hypers import ModelHypers

    return ModelHypers


def _trainer_hypers() -> type[BaseModel]:
    from atomtrain_classifier.hypers import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    """The identity card of the classifier."""
    return ArchitectureInfo(
        name="classifier",
        summary="classes of structures from the features of a trained model",
        description=(
            "The features of a trained model of any architecture that offers them are averaged "
            "over each structure and go through a small network to the probabilities of classes. "
            "A hidden layer of one or two numbers is a map of the structures, or a collective "
            "variable. The trained model stays as it is, so an epoch costs next to nothing, unless "
            "it is unfrozen."
        ),
        stage="experimental",
        model_hypers=_model_hypers,
        trainer_hypers=_trainer_hypers,
        authors=(_TEAM,),
        maintainers=(_TEAM,),
        references={"implementation": (), "architecture": ()},
        devices=("cuda", "cpu", "mps"),
        dtypes=("float32", "float64", "bfloat16", "float16"),
        target_kinds=("classes", "binary", "spacegroup", "pointgroup", "crystal_system"),
        default_kind="classes",
    )


@hookimpl
def build_model(hypers: ModelHypers, dataset_info: DatasetInfo, context: BuildContext) -> Model:
    """The network on the model that the options or the checkpoint bring."""
    from atomtrain.training.backbone import open_backbone
    from atomtrain_classifier.model import Classifier

    trained_along = getattr(context.trainer_hypers, "unfreeze_after", None) is not None
    backbone = open_backbone(
        context, dataset_info, hyper="model_checkpoint", trainable=trained_along
    )
    return Classifier(hypers, dataset_info, backbone)


@hookimpl
def train_model(model: Model, run: TrainingRun) -> TrainingOutcome:
    """The core's engine, which unfreezes the backbone when it is time."""
    from atomtrain_classifier.trainer import train

    return train(model, run)


@hookimpl
def export_model(predictor: Predictor, metadata: dict[str, Any]) -> Any:
    """The core's wrapper, on the devices of the backbone and with its references."""
    from atomtrain_classifier.trainer import export

    return export(predictor, metadata)
