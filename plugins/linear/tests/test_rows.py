"""Rows of the design matrix: derivatives, and what the model makes of the same coefficients."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from helpers.soap import TYPES, info, structures
from helpers.structures import graph_of
from torch import Tensor

from atomtrain.graph import AtomGraph
from atomtrain.model import forces_and_strain, with_leaves
from atomtrain_linear import rows as module
from atomtrain_linear.fit import Solution
from atomtrain_linear.hypers import ModelHypers
from atomtrain_linear.model import Linear
from atomtrain_linear.rows import DesignMatrix

SMALL = ModelHypers(cutoff=4.5, num_radial=3, max_degree=2, num_pairs=4, num_products=3)


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    return structures()


@pytest.fixture(scope="module")
def model() -> Linear:
    made = Linear(SMALL, info(TYPES)).to(torch.float64)
    torch.manual_seed(0)
    n = made.n_coefficients
    root = torch.randn(n, n, dtype=torch.float64)
    factor = torch.linalg.cholesky(root @ root.T + torch.eye(n))
    made.set(Solution(torch.randn(n, dtype=torch.float64), factor, 0.0, 0.0, 1.0, 0.0), 2.0)
    return made


def coefficients(model: Linear) -> Tensor:
    return torch.cat([model.weight.flatten(), model.constant])


def rows_of(model: Linear, graph: AtomGraph) -> dict[str, Tensor]:
    species = model.species_index[graph.types]
    design = DesignMatrix(model.features, model.density.radial, model.n_species)
    rows = design.of(graph, species, ["forces", "strain"])
    return {"values": model.rows(graph, species), **rows}


def test_rows_times_coefficients_are_what_the_model_predicts(
    model: Linear, frames: list[Atoms]
) -> None:
    graph = with_leaves(graph_of(frames, cutoff=4.5))
    energies = model(graph, ["energy"])["energy"][0]
    forces, strain = forces_and_strain(energies, graph, strain=True, create_graph=False)
    totals = torch.zeros(len(frames), 1, dtype=torch.float64).index_add_(
        0, graph.structure, energies.detach()
    )
    rows, w = rows_of(model, graph), coefficients(model)
    torch.testing.assert_close(rows["values"] @ w, totals[:, 0])
    torch.testing.assert_close(rows["forces"] @ w, forces, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rows["strain"] @ w, strain.detach(), rtol=1e-9, atol=1e-9)


def test_every_feature_has_the_derivative_of_finite_differences(
    model: Linear, frames: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    molecule, step = frames[0], 1e-5
    monkeypatch.setattr(module, "ROOM", 1)  # atom by atom
    rows = rows_of(model, graph_of([molecule], cutoff=4.5))
    way = torch.randn(len(molecule), 3, generator=torch.Generator().manual_seed(1)).numpy()
    there = []
    for sign in (1, -1):
        moved = molecule.copy()
        moved.positions += sign * step * way
        there.append(rows_of(model, graph_of([moved], cutoff=4.5))["values"][0])
    slope = (there[0] - there[1]) / (2 * step)
    along = -torch.einsum("axf,ax->f", rows["forces"], torch.from_numpy(way).double())
    assert float(slope[: -model.n_species].abs().max()) > 1.0
    torch.testing.assert_close(along, slope, rtol=1e-6, atol=1e-6)


def test_features_do_not_depend_on_chance_or_data() -> None:
    torch.manual_seed(1)
    one = Linear(SMALL, info(TYPES)).features.state_dict()
    torch.manual_seed(2)
    two = Linear(SMALL, info(TYPES)).features.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_pairs_are_no_more_than_there_are_different_ones() -> None:
    features = Linear(SMALL.model_copy(update={"num_pairs": 1000}), info((6,))).features
    assert features.two.channels == 6


def test_uncertainty_is_that_of_the_sum_over_atoms(model: Linear, frames: list[Atoms]) -> None:
    graph = graph_of(frames, cutoff=4.5)
    deviation = model(graph, ["energy_uncertainty"])["energy_uncertainty"][0]
    x = rows_of(model, graph)["values"]
    covariance = torch.linalg.inv(model.factor @ model.factor.T)
    by_hand = 2.0 * torch.einsum("ni,ij,nj->n", x, covariance, x).sqrt()
    torch.testing.assert_close(deviation[:, 0], by_hand)
