"""Checkpoints of earlier versions."""

from __future__ import annotations

import pytest

from atomtrain.errors import CheckpointError
from atomtrain_ace.plugin import upgrade_checkpoint


def test_other_messages_are_not_taken_over() -> None:
    one = {"hypers": {"model": {"num_layers": 1}}}
    assert upgrade_checkpoint(one, "model", 1) is one
    two = {"hypers": {"model": {"num_layers": 2}}}
    with pytest.raises(CheckpointError, match="messages between two layers have changed"):
        upgrade_checkpoint(two, "model", 1)
