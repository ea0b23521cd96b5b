"""Denoising: how much noise, of which atoms, and that validation keeps it."""

from __future__ import annotations

from typing import Any

import torch
from ase import Atoms
from ase.build import bulk, molecule
from helpers.structures import source_of
from helpers.tasks import denoising

from atomtrain.data import BatchSource, Label, Noise
from atomtrain.targets import DatasetInfo
from atomtrain_testing.predictions import store_of


def noisy_source(store: Any, fixed: bool, seed: int = 3) -> BatchSource:
    target = denoising()
    n = len(store.types)
    store.labels["t"] = Label(torch.zeros(n, 3, dtype=torch.float64), True)
    store.labels["energy"] = Label(torch.zeros(len(store), 1, dtype=torch.float64), False)
    noise = Noise.of(DatasetInfo("angstrom", (1, 8, 29), {"t": target}), seed, fixed)
    return source_of(store, cutoff=3.0, noise=noise)


def test_noise_of_denoising() -> None:
    store = store_of([molecule("H2O"), bulk("Cu", cubic=True), molecule("H2O"), Atoms("Cu")])
    source = noisy_source(store, fixed=False)
    (whole,) = source.epoch([torch.arange(4)], 5)
    halves = list(noisy_source(store, fixed=False).epoch([torch.tensor([2, 3]),
                                                          torch.tensor([0, 1])], 5))  # fmt: skip
    noise = whole.labels["t"]
    # whatever the batches are, a structure has the same noise in an epoch
    torch.testing.assert_close(torch.cat([halves[1].labels["t"], halves[0].labels["t"]]), noise)
    (other,) = source.epoch([torch.arange(4)], 6)
    assert not torch.allclose(other.labels["t"], noise)
    moved = whole.noisy["noise 0.2"]
    torch.testing.assert_close(moved.positions - whole.graph.positions, 0.2 * noise)
    # no model can see a structure move as a whole
    assert float(noise[:3].mean(0).abs().max()) < 1e-12 and float(noise[-1].abs().max()) == 0.0
    # the pairs are those of the noisy positions
    distances = torch.linalg.vector_norm(moved.vectors, dim=1)
    assert float(distances.max()) < 3.0
    between = moved.positions[moved.neighbors] - moved.positions[moved.centers]
    cells = moved.cells[moved.structure[moved.centers]]
    images = torch.einsum("pa,pab->pb", moved.shifts, cells)
    torch.testing.assert_close(moved.vectors, between + images)
    clean = torch.linalg.vector_norm(whole.graph.vectors, dim=1)
    assert len(clean) != len(distances)  # some pairs came or went


def test_noise_of_validation_stays() -> None:
    store = store_of([molecule("H2O"), bulk("Cu", cubic=True)])
    source = noisy_source(store, fixed=True)
    drawn = [next(iter(source.epoch([torch.arange(2)], e))).labels["t"] for e in (0, 7)]
    assert torch.equal(*drawn)
    (training,) = noisy_source(store, fixed=False).epoch([torch.arange(2)], 0)
    assert not torch.equal(training.labels["t"], drawn[0])
