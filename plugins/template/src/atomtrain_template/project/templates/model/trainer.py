"""The model: features of atoms. The core makes the targets of them."""

import torch
from atomtrain.graph import AtomGraph
from atomtrain.model import FeatureModel, Growth, Model
from atomtrain.targets import DatasetInfo
from torch import Tensor

from {{ cookiecutter.package }}.descriptor import Descriptor
from {{ cookiecutter.package }}.hypers import ModelHypers


class {{ cookiecutter.class_name }}(FeatureModel):
    """Features of each atom's neighbours."""

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        descriptor = Descriptor(hypers.cutoff, hypers.n_radial, hypers.n_channels)
        super().__init__(dataset_info, descriptor.n_features)
        self.descriptor = descriptor
        self.cutoff = hypers.cutoff
        self.interaction_range = hypers.cutoff

    def features(self, graph: AtomGraph) -> Tensor:
        """``[n_atoms, n_features]``"""
        features: Tensor = self.descriptor(graph)[0]
        return features

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """New elements have weights already, by atomic number: all that is learnt is taken over."""
        growth.take_over(self, trained)
