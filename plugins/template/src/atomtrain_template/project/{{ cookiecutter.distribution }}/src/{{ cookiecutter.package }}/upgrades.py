"""How a checkpoint of an older version becomes one of the current version, step by step.

Version 2 of the model is due when a release changes names or shapes of weights, or its hypers:

1. before the change, keep a checkpoint of version 1 for the tests to load ever after:
   ``atomtrain check {{ cookiecutter.name }} --write-golden tests/golden``
   (with ``--hypers small.yaml`` it is small);
2. say in ``model_1_to_2`` what changed, and set MODEL_VERSION to 2;
3. add the next step, ``model_2_to_3``, which waits.

The same goes for the trainer, whose part of a checkpoint is ``checkpoint["trainer"]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atomtrain.errors import CheckpointError

MODEL_VERSION = 1
TRAINER_VERSION = 1


def model_1_to_2(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Waits for version 2: until then weights and hypers are as they were."""
    return with_weights(checkpoint, lambda weights: weights)


STEPS = {("model", 1): model_1_to_2}


def upgrade(checkpoint: dict[str, Any], part: str, from_version: int) -> dict[str, Any]:
    """The step of ``part`` from this version to the next; CheckpointError if there is none."""
    step = STEPS.get((part, from_version))
    if step is None:
        raise CheckpointError(f"version {from_version} of the {part} cannot be upgraded")
    return step(checkpoint)


def with_weights(
    checkpoint: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """The checkpoint with ``change`` done to its weights, the last and the best ones."""
    states = {
        kind: None if weights is None else change(dict(weights))
        for kind, weights in checkpoint["model"].items()
    }
    return {**checkpoint, "model": states}
