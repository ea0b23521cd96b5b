"""The model: energies of atoms. Forces and stress come by themselves."""

import torch
from atomtrain.graph import AtomGraph
from atomtrain.model import Growth, Model, PotentialModel
from atomtrain.targets import DatasetInfo
from torch import Tensor, nn

from {{ cookiecutter.package }}.descriptor import Descriptor
from {{ cookiecutter.package }}.hypers import ModelHypers


class {{ cookiecutter.class_name }}(PotentialModel):
    """A network on features of neighbours."""

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.cutoff = hypers.cutoff
        self.interaction_range = hypers.cutoff
        self.descriptor = Descriptor(hypers.cutoff, hypers.n_radial, hypers.n_channels)
        self.network = nn.Sequential(
            nn.Linear(self.descriptor.n_features, hypers.n_hidden),
            nn.SiLU(),
            nn.Linear(hypers.n_hidden, 1),
        )

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        """``[n_atoms]``, of ``graph.vectors``, ``types``, ``centers`` and ``neighbors``."""
        energies: Tensor = self.network(self.descriptor(graph)[0])  # [n_atoms, 1]
        return energies.squeeze(1)

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """New elements have weights already, by atomic number: all that is learnt is taken over."""
        growth.take_over(self, trained)
