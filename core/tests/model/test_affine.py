"""Compositions and scales fitted to data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule
from helpers.models import Pairwise, energy_info

from atomtrain.data import Label
from atomtrain.model import Predictor
from atomtrain.model.affine import fit_composition, fit_scale, normalise
from atomtrain.targets import TargetInfo
from atomtrain.training.predict import samples_of
from atomtrain_testing.predictions import store_of

TYPES = (1, 6, 8)


def samples(target: TargetInfo, values: torch.Tensor, mask: torch.Tensor | None = None):  # type: ignore[no-untyped-def]
    store = store_of([molecule(n) for n in ("H2O", "CH4", "CO2", "CH3OH", "H2", "O2", "C6H6")])
    store.labels[target.name] = Label(values, target.per_atom, mask)
    return samples_of(store, target, TYPES)


def test_composition_and_scale() -> None:
    target = energy_info().targets["energy"]
    counts = samples(target, torch.zeros(7, 1, dtype=torch.float64)).composition
    atoms = torch.tensor([[-13.0], [-1000.0], [-2000.0]], dtype=torch.float64)
    noise = 0.1 * torch.randn(7, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = samples(target, counts @ atoms + noise)
    predictor = Predictor(Pairwise(energy_info()), energy_info())
    affine = predictor.affine_of("energy")
    fit_composition(affine, target, data)
    np.testing.assert_allclose(affine.shift, atoms, atol=0.5)
    fit_scale(affine, target, data)
    scaled = normalise(affine, target, data)
    assert float(scaled.square().mean().sqrt()) == pytest.approx(1.0)
    fit_composition(affine, target, data, {0: -13.5})
    assert float(affine.shift[0]) == -13.5


def test_masked_labels_do_not_count() -> None:
    target = energy_info().targets["energy"]
    values = samples(target, torch.zeros(7, 1, dtype=torch.float64)).composition.sum(1, True)
    values[2] = 1e6
    mask = torch.ones(7, 1, dtype=torch.bool)
    mask[2] = False
    affine = Predictor(Pairwise(energy_info()), energy_info()).affine_of("energy")
    fit_composition(affine, target, samples(target, values, mask))
    np.testing.assert_allclose(affine.shift, np.ones((3, 1)), atol=1e-8)
