"""The hooks of {{ cookiecutter.name }}. Imports torch only where a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomtrain.contract import ArchitectureInfo{% if cookiecutter.level == "wrapper" %}, BuildContext{% endif %}, Person, hookimpl

from {{ cookiecutter.package }} import upgrades

if TYPE_CHECKING:
    from atomtrain.model import Model
    from atomtrain.targets import DatasetInfo
{%- if cookiecutter.level in ("trainer", "fit") %}
    from atomtrain.training.run import TrainingOutcome, TrainingRun
{%- endif %}
    from pydantic import BaseModel

    from {{ cookiecutter.package }}.hypers import ModelHypers

AUTHOR = Person(
    "{{ cookiecutter.author }}",
    email="{{ cookiecutter.email }}",
)


def _model_hypers() -> type[BaseModel]:
    from {{ cookiecutter.package }}.hypers import ModelHypers

    return ModelHypers


def _trainer_hypers() -> type[BaseModel]:
    from {{ cookiecutter.package }}.hypers import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    """Name, people, hypers, what it can fit."""
    return ArchitectureInfo(
        name="{{ cookiecutter.name }}",
{%- if cookiecutter.level == "wrapper" %}
        summary="a small network on the features of a trained model",
        description=(
            "The features of a trained model, which stays as it is, are normalised and go through "
            "one layer; heads make the targets of them."
        ),
{%- elif cookiecutter.level == "fit" %}
        summary="a potential linear in sums over neighbours, fitted by least squares",
        description=(
            "Sums over an atom's neighbours, of functions of distance and element times "
            "directions, have norms that no rotation changes; these are multiplied by weights that "
            "ridge regression finds in one pass over energies, forces and stress."
        ),
{%- else %}
        summary="distances and directions of neighbours, and small networks",
        description=(
            "Sums over an atom's neighbours, of learnt functions of distance and element times "
            "directions, have norms that no rotation changes; small networks go on from these."
        ),
{%- endif %}
        stage="experimental",
        model_hypers=_model_hypers,
        trainer_hypers=_trainer_hypers,
        authors=(AUTHOR,),
        maintainers=(AUTHOR,),
        references={"implementation": (), "architecture": ()},
        devices=("cuda", "cpu"),
        dtypes=("float32", "float64"),
{%- if cookiecutter.level in ("features", "predictions") %}
        target_kinds=("scalar", "cartesian"),
{%- else %}
        target_kinds=("scalar",),
{%- endif %}
        model_version=upgrades.MODEL_VERSION,
        trainer_version=upgrades.TRAINER_VERSION,
    )


@hookimpl
{%- if cookiecutter.level == "wrapper" %}
def build_model(hypers: ModelHypers, dataset_info: DatasetInfo, context: BuildContext) -> Model:
    """The torch module, on the model that the options or the checkpoint bring."""
    from atomtrain.training.backbone import open_backbone

    from {{ cookiecutter.package }}.model import {{ cookiecutter.class_name }}

    backbone = open_backbone(context, dataset_info)
    return {{ cookiecutter.class_name }}(hypers, dataset_info, backbone)
{%- else %}
def build_model(hypers: ModelHypers, dataset_info: DatasetInfo) -> Model:
    """The torch module."""
    from {{ cookiecutter.package }}.model import {{ cookiecutter.class_name }}

    return {{ cookiecutter.class_name }}(hypers, dataset_info)
{%- endif %}
{%- if cookiecutter.level in ("trainer", "fit") %}


@hookimpl
def train_model(model: Model, run: TrainingRun) -> TrainingOutcome:
    """Trains the model that is inside ``run.predictor``."""
    from {{ cookiecutter.package }}.trainer import train

    return train(model, run)
{%- endif %}


@hookimpl
def upgrade_checkpoint(checkpoint: dict[str, Any], part: str, from_version: int) -> dict[str, Any]:
    """One version further."""
    return upgrades.upgrade(checkpoint, part, from_version)
