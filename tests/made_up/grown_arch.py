"""An architecture with a history: three versions, a weight renamed and reshaped, a new name.

Installed with ``VERSION`` and ``NAME`` replaced by what that release had.
"""

from __future__ import annotations

from typing import Any

from atomtrain.contract import ArchitectureInfo, Person, hookimpl

VERSION = 3
NAME = "grown-up"


def _hypers() -> Any:
    from atomtrain.options import Section

    return Section


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
def build_model(dataset_info: Any) -> Any:
    import grown_model

    return getattr(grown_model, f"Version{VERSION}")(dataset_info)


@hookimpl
def upgrade_checkpoint(checkpoint: dict[str, Any], part: str, from_version: int) -> dict[str, Any]:
    if part == "trainer":
        return checkpoint  # version 2 only trained differently
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
    return {**checkpoint, "model": states, "trainer": trainer}
