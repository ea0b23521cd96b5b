"""Terms of the loss."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from helpers.models import energy_info

from atomtrain.data import BatchSource
from atomtrain.options import TrainerHypers
from atomtrain.training.finetune import Replayed
from atomtrain.training.terms import loss_terms, weighted
from atomtrain_testing.predictions import store_of


def test_losses_are_sums_over_counts() -> None:
    hypers = TrainerHypers(loss={"energy": {"weight": 2.0, "forces": {"type": "mae"}}})
    energy, forces, strain = loss_terms(energy_info(), hypers)
    assert [t.key for t in (energy, forces, strain)] == ["energy", "energy:forces", "energy:strain"]
    n_atoms = torch.tensor([3.0, 5.0])
    prediction, label = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [5.0]])
    numerator, count = energy(prediction, label, None, n_atoms)
    assert (float(numerator), count) == (2 * (1 + 9), 2)
    mask = torch.tensor([[True], [False]])
    numerator, count = energy(prediction, label, mask, n_atoms)
    assert (float(numerator), int(count)) == (2.0, 1)
    numerator, _ = forces(torch.tensor([[1.0, -2.0, 0.0]]), torch.zeros(1, 3), None, n_atoms)
    assert float(numerator) == 3.0
    whole = loss_terms(energy_info(), TrainerHypers(per_structure_targets=["energy"]))[0]
    numerator, _ = whole(prediction, label, None, n_atoms)
    assert float(numerator) == 9 * 1 + 25 * 9


def test_old_structures_by_their_weight() -> None:
    """Labels of structures and of atoms; how many there are does not depend on it."""
    store = store_of([Atoms("H2", positions=[[0, 0, k], [0, 0, 1.0]]) for k in (0.0, 0.1, 0.2)])
    batch = BatchSource(store, 2.0, torch.float64).batch(torch.tensor([2, 0]))
    energy, forces, _ = loss_terms(energy_info(), TrainerHypers())
    batch.labels = {"energy": torch.zeros(2, 1), "energy:forces": torch.zeros(4, 3)}
    batch.masks = {"energy": None, "energy:forces": torch.ones(4, 3, dtype=torch.bool)}
    replayed = Replayed(torch.tensor([True, True, False]), 0.5, 0.1)
    numerator, count = weighted(energy, torch.tensor([[1.0], [2.0]]), batch, replayed)
    assert (float(numerator), int(count)) == pytest.approx((1 + 0.1 * 4, 2))
    predicted = torch.tensor([[1.0] * 3] * 2 + [[2.0] * 3] * 2)
    numerator, count = weighted(forces, predicted, batch, replayed)
    assert (float(numerator), int(count)) == pytest.approx((6 + 0.1 * 24, 12))
