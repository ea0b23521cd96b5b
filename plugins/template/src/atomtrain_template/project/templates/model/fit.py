"""The model: energies linear in their weights. Forces and stress come by themselves."""

import torch
from atomtrain.graph import AtomGraph
from atomtrain.model import PotentialModel
from atomtrain.targets import DatasetInfo
from torch import Tensor, nn

from {{ cookiecutter.package }}.descriptor import Descriptor
from {{ cookiecutter.package }}.hypers import ModelHypers


class {{ cookiecutter.class_name }}(PotentialModel):
    """A weight for every number that describes an atom's neighbours, by the atom's element."""

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.cutoff = hypers.cutoff
        self.interaction_range = hypers.cutoff
        self.descriptor = Descriptor(hypers.cutoff, hypers.n_radial, hypers.n_channels)
        self.descriptor.requires_grad_(False)
        types = torch.tensor(dataset_info.atomic_types)
        index = torch.zeros(119, dtype=torch.long).index_copy(0, types, torch.arange(len(types)))
        self.index: Tensor
        self.register_buffer("index", index, persistent=False)
        # no autograd: the trainer computes them
        weights = torch.zeros(len(types), self.descriptor.n_features)
        self.weights = nn.Parameter(weights, requires_grad=False)

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        """``[n_atoms]``, of ``graph.vectors``, ``types``, ``centers`` and ``neighbors``."""
        features: Tensor = self.descriptor(graph)[0]
        weights = self.weights.index_select(0, self.index.index_select(0, graph.types))
        return (features * weights).sum(1)
