"""An architecture with a history: three versions, a hyper and a weight renamed, a weight reshaped, a new name.

Installed with ``VERSION`` and ``NAME`` replaced by what that release had.
"""

from __future__ import annotations

from typing import Any

from atomtrain.contract import ArchitectureInfo, Person, hookimpl

VERSION = 3
NAME = "grown-up"


def _hypers() -> Any:
    import grown_hypers

    return getattr(grown_hypers, f"Version{VERSION}")


def _trainer() -> Any:
    from atomtrain.options import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    return ArchitectureInfo(
        name=NAME,
        summary="has a history",
        model_hypers=_hypers,
        trainer_hypers=_trainer,
        aliases=("grown",) if NAME == "grown-up" else (),
        maintainers=(Person("Somebody", handle="somebody"),),
        model_version=VERSION,
        trainer_version=min(VERSION, 2),
    )


@hookimpl
def build_model(hypers: Any, dataset_info: Any) -> Any:
    import grown_model

    amplitude = next(iter(hypers.model_dump().values()))
    return getattr(grown_model, f"Version{VERSION}")(dataset_info, amplitude)


@hookimpl
def upgrade_checkpoint(checkpoint: dict[str, Any], part: str, from_version: int) -> dict[str, Any]:
    if part == "trainer":
        return checkpoint  # version 2 only trained differently
    hypers = checkpoint["hypers"]
    if from_version == 1:  # size was renamed
        hypers = {**hypers, "model": {"amplitude": hypers["model"]["size"]}}
    states = {}
    for name, state in checkpoint["model"].items():
        state = dict(state)
        if from_version == 1:  # strength was renamed
            state["factors"] = state.pop("strength")
        else:  # factors became a column
            state["factors"] = state["factors"].unsqueeze(1)
        states[name] = state
    trainer = checkpoint["trainer"]
    if from_version == 2:
        optimizer = trainer["optimizer"]
        moments = {
            k: {n: m.unsqueeze(1) if m.shape == (120,) else m for n, m in one.items()}
            for k, one in optimizer["state"].items()
        }
        trainer = {**trainer, "optimizer": {**optimizer, "state": moments}}
    return {**checkpoint, "hypers": hypers, "model": states, "trainer": trainer}
