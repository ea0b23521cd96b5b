"""A small architecture to build on, installed by the tests: the classifier knows the core alone."""

from typing import Any

from atomtrain.contract import ArchitectureInfo, hookimpl
from atomtrain.options import Section


class RingsHypers(Section):
    """None but this."""

    featureless: bool = False
    """Whether the model offers no features."""


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    return ArchitectureInfo(
        name="rings",
        summary="neighbours in rings",
        model_hypers=lambda: RingsHypers,
        devices=("cpu",),
        dtypes=("float32", "float64"),
        target_kinds=("scalar",),
        references={"architecture": ("rings: https://example.org/rings",)},
    )


@hookimpl
def build_model(hypers: Any, dataset_info: Any) -> Any:
    import rings_model

    return rings_model.Rings(dataset_info, hypers.featureless)
