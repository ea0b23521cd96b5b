"""Forces and strain, however the energy is built."""

from __future__ import annotations

import numpy as np
import torch
from ase.build import bulk
from helpers.models import Pairwise, energy_info
from helpers.structures import graph_of

from atomtrain.graph import AtomGraph
from atomtrain.model import Model, forces_and_strain, with_leaves


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
