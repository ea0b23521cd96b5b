"""The model of :mod:`rings_plugin`."""

from typing import Dict

import torch
from torch import Tensor

from atomtrain.graph import AtomGraph
from atomtrain.model import FeatureModel
from atomtrain.targets import DatasetInfo

CUTOFF = 4.5
N = 12


class Rings(FeatureModel):
    """How many neighbours an atom has at every distance, squared by a trained layer."""

    def __init__(self, dataset_info: DatasetInfo, featureless: bool) -> None:
        super().__init__(dataset_info, N)
        self.cutoff = CUTOFF
        self.interaction_range = CUTOFF
        self.featureless = featureless
        self.layer = torch.nn.Linear(N, N)
        self.register_buffer("centers", torch.linspace(1.5, CUTOFF, N))

    def features(self, graph: AtomGraph) -> Tensor:
        r = torch.linalg.vector_norm(graph.vectors, dim=1, keepdim=True)
        fade = (1 - (r / self.cutoff) ** 2).clamp(min=0) ** 2
        rings = torch.exp(-(((r - self.centers) / 0.2) ** 2)) * fade
        n_atoms = graph.positions.shape[0]
        counts = torch.zeros([n_atoms, self.n_features], dtype=rings.dtype, device=rings.device)
        return torch.tanh(self.layer(counts.index_add(0, graph.centers, rings)))

    @torch.jit.ignore
    def feature_outputs(self) -> Dict[str, int]:
        return {} if self.featureless else super().feature_outputs()
