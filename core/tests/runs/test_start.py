"""What happens before a training from scratch, and before no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.training import train

from atomtrain import api
from atomtrain.data import Batch
from atomtrain.model import Model


def test_a_model_may_look_at_data_before_it_is_trained_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Batch]] = []

    def calibrate(self: Model, batches: Iterator[Batch]) -> None:
        seen.append(list(batches))

    monkeypatch.setattr(Model, "calibrate", calibrate)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        done = train(tmp_path / name, monkeypatch)
    once, again = seen
    n_structures = sum(len(batch.structures) for batch in once)
    assert n_structures == len({int(k) for batch in once for k in batch.structures})  # each once
    for a, b in zip(once, again, strict=True):
        assert a.graph.vectors.dtype == torch.float64
        assert torch.equal(a.structures, b.structures)  # drawn by the seed
    sizes = torch.cat([batch.labels["energy"].flatten() for batch in once])
    assert float(sizes.square().mean().sqrt()) == pytest.approx(1.0, rel=0.2)  # as it is trained on

    api.train("options.yaml", restart=done.checkpoint)
    assert len(seen) == 2


def test_no_more_than_a_sample_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_atoms: list[int] = []

    def calibrate(self: Model, batches: Iterator[Batch]) -> None:
        n_atoms.extend(len(batch.graph.types) for batch in batches)

    monkeypatch.setattr(Model, "calibrate", calibrate)
    monkeypatch.setattr(sys.modules["atomtrain.runs.start"], "SAMPLE", 20)
    train(tmp_path, monkeypatch)
    assert sum(n_atoms[:-1]) < 20 <= sum(n_atoms)
