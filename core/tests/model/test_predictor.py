"""Gradients, baselines, predictor and export around the smallest architecture there is."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from helpers.models import Pairwise, energy_info
from helpers.structures import graph_of

from atomtrain.data import Label
from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model import Model, Predictor, forces_and_strain, with_leaves
from atomtrain.model.affine import fit_composition, fit_scale, normalise
from atomtrain.model.export import export_predictor, load_model, save_model
from atomtrain.model.heads import pool, pooled_width
from atomtrain.targets import Block, DatasetInfo, Irrep, TargetInfo
from atomtrain.training.predict import samples_of
from atomtrain_testing.predictions import store_of

TYPES = (1, 6, 8)


class FromPositions(Model):
    """Energy from positions and cells instead of vectors, as long-range models do."""

    def __init__(self) -> None:
        super().__init__()
        self.cutoff = 3.0
        self.w = torch.nn.Parameter(torch.ones(1))

    def forward(self, graph: AtomGraph, outputs: list[str]) -> dict[str, list[torch.Tensor]]:
        i, j = graph.centers, graph.neighbors
        vectors = graph.positions[j] - graph.positions[i]
        vectors = vectors + torch.bmm(
            graph.shifts[:, None], graph.cells[graph.structure[i]]
        ).squeeze(1)
        pairs = self.w * (1 - vectors.square().sum(1) / 9) ** 3
        zero = torch.zeros_like(graph.positions[:, 0])
        return {"energy": [zero.index_add(0, i, pairs)[:, None]]}


def crystal_graph() -> AtomGraph:
    atoms = bulk("C", "diamond", a=3.6, cubic=True)
    atoms.positions += 0.05 * np.random.default_rng(0).normal(size=atoms.positions.shape)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + [[0, 0.1, 0], [0, 0, 0], [0, 0, 0.02]]),
                   scale_atoms=True)  # fmt: skip
    return graph_of([atoms], cutoff=3.0)


def test_gradients_do_not_depend_on_how_energies_are_built() -> None:
    results = []
    for model in (Pairwise(energy_info(), 3.0), FromPositions()):
        graph = with_leaves(crystal_graph())
        energy = model.double()(graph, ["energy"])["energy"][0]
        forces, strain = forces_and_strain(energy, graph, strain=True, create_graph=False)
        assert strain is not None
        results.append((energy.detach(), forces, strain))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    matrix = results[0][2].reshape(3, 3)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-9, atol=1e-10)


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


def test_pooling() -> None:
    graph = graph_of([molecule("H2O"), molecule("H")], cutoff=3.0)
    values = torch.tensor([[1.0], [2.0], [6.0], [5.0]], dtype=torch.float64, requires_grad=True)
    found = {how: pool(values, graph, how) for how in ("sum", "mean", "max", "mean_std")}
    assert found["sum"].flatten().tolist() == [9.0, 5.0]
    assert found["mean"].flatten().tolist() == [3.0, 5.0]
    assert found["max"].flatten().tolist() == [6.0, 5.0]
    both = found["mean_std"].detach().numpy()
    assert np.allclose(both, [[3.0, np.std([1, 2, 6])], [5.0, 0.0]], atol=2e-5)
    assert pooled_width(7, "mean_std") == 14 and pooled_width(7, "max") == 7
    (gradient,) = torch.autograd.grad(found["mean_std"].sum(), values)
    assert bool(gradient.isfinite().all())


def test_layouts() -> None:
    spherical = TargetInfo("a::t", kind="spherical", irreps=(Irrep(0, 1, 2), Irrep(2, -1)))
    assert [b.shape for b in spherical.blocks] == [(1, 2), (5, 1)]
    assert [b.invariant for b in spherical.blocks] == [True, False]
    assert spherical.width == 7
    assert TargetInfo("a::m", kind="cartesian", rank=2).blocks[0].shape == (3, 3, 1)
    assert isinstance(spherical.blocks[0], Block)
    info = DatasetInfo("angstrom", (1, 8), {"a::t": spherical, **energy_info().targets})
    assert DatasetInfo.from_dict(info.to_dict()) == info
    with pytest.raises(TargetError, match="exist only for a target that is an energy"):
        TargetInfo("a::x", gradients=("forces",))
    with pytest.raises(TargetError, match="predicts one energy per structure"):
        Pairwise(info)


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
