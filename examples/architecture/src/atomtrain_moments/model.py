import torch
from torch import Tensor, nn

from atomtrain.graph import AtomGraph
from atomtrain.model import FeatureModel


class Moments(FeatureModel):
    """Sums over neighbours of learnt weights, alone and times powers of the direction."""

    def __init__(self, hypers, dataset_info):
        super().__init__(dataset_info, n_features=4 * hypers.width)
        self.cutoff = self.interaction_range = hypers.cutoff
        self.width = hypers.width
        self.elements = nn.Parameter(torch.randn(119, self.width))
        self.radial = nn.Linear(8, self.width, bias=False)
        self.norm = nn.LayerNorm(self.n_features)
        self.register_buffer("waves", torch.pi * torch.arange(8), persistent=False)

    def features(self, graph: AtomGraph) -> Tensor:
        r = torch.linalg.vector_norm(graph.vectors, dim=1, keepdim=True)  # [n_pairs, 1]
        x = (r / self.cutoff).clamp(max=1.0)
        elements = self.elements.index_select(0, graph.types)  # [n_atoms, width]
        weights = (1.0 - x) ** 3 * self.radial(torch.cos(self.waves * x))
        weights = weights * elements.index_select(0, graph.neighbors)  # [n_pairs, width]

        unit = graph.vectors / r
        twice = unit.unsqueeze(1) * unit.unsqueeze(2)  # [n_pairs, 3, 3]
        powers = torch.cat([torch.ones_like(r), unit, twice.flatten(1)], dim=1)  # [n_pairs, 13]
        moments = weights.new_zeros([len(graph.types), 13, self.width])
        moments = moments.index_add(0, graph.centers, powers.unsqueeze(2) * weights.unsqueeze(1))

        one, vector, matrix = moments.split([1, 3, 9], dim=1)
        norms = [vector.square().sum(1), matrix.square().sum(1)]
        return self.norm(torch.cat([elements, one.squeeze(1), norms[0], norms[1]], dim=1))
