"""A model with vectors among its features, as the author's guide describes it.

Without ``from __future__ import annotations``: TorchScript compiles it.
"""

from typing import Dict, Tuple

import torch
from torch import Tensor, nn

from atomtrain.graph import AtomGraph
from atomtrain.model import FeatureModel
from atomtrain.targets import DatasetInfo


class Moments(FeatureModel):
    """Sums of weights and of weighted directions of neighbours."""

    def __init__(self, dataset_info: DatasetInfo, width: int = 4) -> None:
        super().__init__(dataset_info, 3 * width, {1: width})
        self.cutoff = self.interaction_range = 4.0
        self.width = width
        self.elements = nn.Parameter(torch.randn(10, width))

    def encode(self, graph: AtomGraph) -> Tuple[Tensor, Dict[int, Tensor]]:
        """Features ``[n_atoms, 3 width]``, vectors ``[n_atoms, 3, width]``."""
        r = torch.linalg.vector_norm(graph.vectors, dim=1, keepdim=True)
        own = self.elements.index_select(0, graph.types)
        weights = (1.0 - r / self.cutoff) ** 3 * own.index_select(0, graph.neighbors)
        n = graph.types.shape[0]
        zero = weights.new_zeros([n, self.width])
        one = zero.index_add(0, graph.centers, weights)
        directed = (graph.vectors / r).unsqueeze(2) * weights.unsqueeze(1)
        vector = weights.new_zeros([n, 3, self.width]).index_add(0, graph.centers, directed)
        features = torch.cat([own, one, vector.square().sum(1)], dim=1)
        return features, {1: vector.roll(-1, dims=1)}
