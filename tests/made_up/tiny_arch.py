"""The plugin of :mod:`tiny_model`, installed by ``install(site, "tiny", source)``."""

from __future__ import annotations

from typing import Any

from atomtrain.contract import ArchitectureInfo, Person, hookimpl


def _hypers() -> Any:
    import tiny_hypers

    return tiny_hypers.Hypers


def _trainer() -> Any:
    from atomtrain.options import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    return ArchitectureInfo(
        name="tiny",
        summary="a small architecture without a fault, or with one",
        model_hypers=_hypers,
        trainer_hypers=_trainer,
        maintainers=(Person("Somebody", handle="somebody"),),
        target_kinds=("scalar", "cartesian"),
    )


@hookimpl
def build_model(hypers: Any, dataset_info: Any) -> Any:
    import tiny_model

    return getattr(tiny_model, hypers.fault or "Tiny")(dataset_info)
