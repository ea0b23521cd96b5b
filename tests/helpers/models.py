"""Structures and an architecture for the core's own tests: no plugin is needed."""

from __future__ import annotations

import torch
from torch import Tensor

from atomtrain.graph import AtomGraph
from atomtrain.model import PotentialModel
from atomtrain.targets import DatasetInfo, TargetInfo


def energy_info(types: tuple[int, ...] = (1, 6, 8)) -> DatasetInfo:
    target = TargetInfo("energy", quantity="energy", unit="eV", gradients=("forces", "strain"))
    return DatasetInfo("angstrom", types, {"energy": target})


class PairsByElement(PotentialModel):
    """A pair potential, smooth at the cutoff, with a strength of its own for each element up to oxygen."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.cutoff = 3.5
        self.interaction_range = 3.5
        self.strength = torch.nn.Parameter(torch.linspace(0.5, 1.5, 9))

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        return self.pairs(graph, graph.vectors)

    def pairs(self, graph: AtomGraph, vectors: Tensor) -> Tensor:
        """Energies of atoms ``[n_atoms]`` with these vectors between them."""
        strength = self.strength.index_select(0, graph.types)
        distance = torch.linalg.vector_norm(vectors, dim=1)
        pairs = strength.index_select(0, graph.neighbors) * (1 - distance / self.cutoff) ** 3
        return strength * torch.zeros_like(strength).index_add(0, graph.centers, pairs)


class Pairwise(PotentialModel):
    """A smooth pair potential: the smallest architecture there is."""

    def __init__(self, dataset_info: DatasetInfo, cutoff: float = 4.0) -> None:
        super().__init__(dataset_info)
        self.cutoff = cutoff
        self.interaction_range = cutoff
        self.strength = torch.nn.Parameter(torch.ones(1))

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        x = (graph.vectors.square().sum(1) / self.cutoff**2).clamp(max=1.0)
        pairs = self.strength * (1.0 - x) ** 3
        zero = torch.zeros_like(graph.positions[:, 0])
        return zero.index_add(0, graph.centers, pairs)
