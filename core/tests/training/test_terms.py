"""Terms of the loss."""

from __future__ import annotations

import torch
from helpers.models import energy_info

from atomtrain.options import TrainerHypers
from atomtrain.training.terms import loss_terms


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
