"""What atomtrain asks of SOAP-BPNN. Imports torch only where a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomtrain.contract import ArchitectureInfo, BuildContext, Person, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.targets import DatasetInfo
    from atomtrain_soap_bpnn.hypers import ModelHypers
    from atomtrain_soap_bpnn.model import SoapBpnn

_TEAM = Person("The atomtrain developers", handle="atomtrain")


def _model_hypers() -> type[BaseModel]:
    from atomtrain_soap_bpnn.hypers import ModelHypers

    return ModelHypers


def _trainer_hypers() -> type[BaseModel]:
    from atomtrain.options import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    """The identity card of SOAP-BPNN."""
    return ArchitectureInfo(
        name="soap-bpnn",
        summary="Behler-Parrinello network on SOAP features",
        description=(
            "Every atom's neighbourhood is expanded in radial functions and spherical harmonics, "
            "one density per element; their power spectrum, unchanged by rotations, feeds a small "
            "network per element. Quick to train, exact in its symmetries, at home with hundreds "
            "to thousands of structures of a few elements. The defaults are metatrain's; a new "
            "training does better with optimizer: muon, learning_rate: 0.003, ema_decay: 0.99."
        ),
        stage="stable",
        model_hypers=_model_hypers,
        trainer_hypers=_trainer_hypers,
        authors=(_TEAM,),
        maintainers=(_TEAM,),
        references={
            "implementation": ("torch-spex: https://github.com/lab-cosmo/torch-spex",),
            "architecture": (
                "SOAP: https://doi.org/10.1002/qua.24927",
                "Behler-Parrinello: https://doi.org/10.1103/PhysRevLett.98.146401",
                "Laplacian eigenstates: https://doi.org/10.1063/5.0124363",
            ),
        },
        devices=("cuda", "cpu"),
        dtypes=("float32", "float64"),
        target_kinds=("scalar", "cartesian", "spherical"),
    )


@hookimpl
def build_model(hypers: ModelHypers, dataset_info: DatasetInfo, context: BuildContext) -> SoapBpnn:
    """The torch module."""
    from atomtrain_soap_bpnn.model import SoapBpnn

    return SoapBpnn(hypers, dataset_info)
