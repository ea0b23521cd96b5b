"""A predictor around the smallest architecture there is, exported and run by ASE."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from ase.build import bulk
from helpers.models import Pairwise, energy_info

from atomtrain.model import Predictor
from atomtrain.model.export import export_predictor, load_model, save_model


@pytest.mark.filterwarnings("ignore")
def test_exported_model_loads_and_is_exact(tmp_path: Path) -> None:
    from metatomic_ase import MetatomicCalculator

    predictor = Predictor(Pairwise(energy_info()).double(), energy_info())
    predictor.affine_of("energy").shift.copy_(torch.tensor([[-1.0], [-1e4], [-3.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foreign = save_model(export_predictor(predictor, {}), tmp_path / "m.pt")
    assert foreign == []
    assert list(load_model(tmp_path / "m.pt").capabilities().outputs) == ["energy"]
    atoms = bulk("C", "diamond", a=3.6)
    atoms.calc = MetatomicCalculator(str(tmp_path / "m.pt"), device="cpu")
    pairs = [(d / 4.0) ** 2 for d in atoms.get_all_distances(mic=True).flatten() if d]
    assert pairs
    from ase.neighborlist import neighbor_list

    expected = float(((1 - (neighbor_list("d", atoms, 4.0) / 4) ** 2) ** 3).sum()) - 2e4
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-9)
