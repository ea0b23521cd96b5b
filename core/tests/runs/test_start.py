"""What happens before a training from scratch, and before no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ase import Atoms
from helpers.training import train

from atomtrain import api
from atomtrain.data import Batch
from atomtrain.model import Model
from atomtrain_testing.predictions import store_of


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
    start = sys.modules["atomtrain.runs.start"]
    monkeypatch.setattr(start, "SAMPLE", 20)
    monkeypatch.setattr(start, "OF_EACH", 0)
    train(tmp_path, monkeypatch)
    assert sum(n_atoms[:-1]) < 20 <= sum(n_atoms)


def test_rare_elements_are_in_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Structures with S stand at no place that is drawn; others are there once, and no more than are needed."""
    start = sys.modules["atomtrain.runs.start"]
    monkeypatch.setattr(start, "SAMPLE", 30)
    monkeypatch.setattr(start, "OF_EACH", 4)
    water, sulphide = (
        Atoms(s, positions=[[0, 0, 0], [1, 0, 0], [0, 1, 0]]) for s in ("OH2", "SH2")
    )
    store = store_of([sulphide if k % 20 == 7 else water for k in range(200)])
    for seed in range(5):
        batches = list(start._sample(store, 2.0, seed))
        structures = [int(batch.structures) for batch in batches]
        types = torch.cat([batch.graph.types for batch in batches])
        assert len(structures) == len(set(structures)) <= 10 + 4
        assert int((types == 16).sum()) >= 4
