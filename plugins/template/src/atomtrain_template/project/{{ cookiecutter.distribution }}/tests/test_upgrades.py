"""Checkpoints of older versions become ones of the current version."""

from typing import Any

import pytest
from atomtrain.errors import CheckpointError

from {{ cookiecutter.package }} import upgrades

CHECKPOINT: dict[str, Any] = {
    "model": {"last": {"a": 1.0, "b": 2.0}, "best": None},
    "trainer": {"epoch": 3},
}


def test_every_version_has_a_step() -> None:
    for version in range(1, upgrades.MODEL_VERSION):
        assert ("model", version) in upgrades.STEPS
    for version in range(1, upgrades.TRAINER_VERSION):
        assert ("trainer", version) in upgrades.STEPS


def test_the_step_that_waits_changes_nothing() -> None:
    assert upgrades.upgrade(CHECKPOINT, "model", 1) == CHECKPOINT


def test_a_missing_step_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="version 99 of the model cannot be upgraded"):
        upgrades.upgrade(CHECKPOINT, "model", 99)


def test_weights_are_renamed_in_both_sets() -> None:
    upgraded = upgrades.with_weights(CHECKPOINT, lambda w: {f"new.{k}": v for k, v in w.items()})
    assert upgraded["model"] == {"last": {"new.a": 1.0, "new.b": 2.0}, "best": None}
    assert upgraded["trainer"] == CHECKPOINT["trainer"]
    assert "a" in CHECKPOINT["model"]["last"]  # the original stays
