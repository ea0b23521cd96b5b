"""The smallest architecture that fits every kind of target: tables by element, not equivariant.

Installed by ``install(site, "tables", target="tables_arch")``.
"""

from typing import Any

from atomtrain.contract import ArchitectureInfo, hookimpl


def _section() -> Any:
    from atomtrain.options import Section

    return Section


def _trainer() -> Any:
    from atomtrain.options import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    return ArchitectureInfo(
        name="tables",
        summary="tables by element",
        model_hypers=_section,
        trainer_hypers=_trainer,
        devices=("cpu",),
        target_kinds=("scalar", "cartesian", "spherical"),
    )


@hookimpl
def build_model(dataset_info: Any) -> Any:
    import tables_model

    return tables_model.Tables(dataset_info)
