"""What atomtrain asks of MACE. Imports torch only where a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomtrain.contract import ArchitectureInfo, BuildContext, Person, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.targets import DatasetInfo
    from atomtrain.training.run import TrainingOutcome, TrainingRun
    from atomtrain_mace.hypers import ModelHypers
    from atomtrain_mace.model import Mace

_TEAM = Person("The atomtrain developers", handle="atomtrain")


def _model_hypers() -> type[BaseModel]:
    from atomtrain_mace.hypers import ModelHypers

    return ModelHypers


def _trainer_hypers() -> type[BaseModel]:
    from atomtrain_mace.hypers import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    """The identity card of MACE."""
    return ArchitectureInfo(
        name="mace",
        summary="MACE, of mace-torch's own blocks: trained here, or imported and fine-tuned",
        description=(
            "Messages between neighbours and products of several of them, equivariant throughout. The blocks are those "
            "of mace-torch, so that its trained and foundation models are taken over (atomtrain import-mace) and "
            "give what they gave. It needs e3nn 0.4.4: give it an environment of its own where other "
            "packages need a newer one."
        ),
        stage="experimental",
        model_hypers=_model_hypers,
        trainer_hypers=_trainer_hypers,
        authors=(
            Person("I. Batatia, D. P. Kovacs, G. N. C. Simm and others (mace-torch)"),
            _TEAM,
        ),
        maintainers=(_TEAM,),
        references={
            "implementation": ("mace-torch: https://github.com/ACEsuit/mace",),
            "architecture": ("MACE: https://doi.org/10.48550/arXiv.2206.07697",),
        },
        devices=("cuda", "cpu"),
        dtypes=("float32", "float64"),
        target_kinds=("scalar", "cartesian", "spherical"),
    )


@hookimpl
def build_model(hypers: ModelHypers, dataset_info: DatasetInfo, context: BuildContext) -> Mace:
    """The torch module."""
    from atomtrain_mace.model import Mace

    return Mace(hypers, dataset_info)


@hookimpl
def train_model(model: Mace, run: TrainingRun) -> TrainingOutcome:
    """The core's engine with MACE's optimiser."""
    from atomtrain.training.engine import train
    from atomtrain_mace.training import Trainer

    return train(model, run, Trainer)
