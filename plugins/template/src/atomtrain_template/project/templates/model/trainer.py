"""The model: features of atoms. The core makes the targets of them."""

import torch
from atomtrain.graph import AtomGraph
from atomtrain.model import FeatureModel, Growth, Model
from atomtrain.targets import DatasetInfo
from torch import Tensor

from {{ cookiecutter.package }}.hypers import ModelHypers
from {{ cookiecutter.package }}.moments import Moments


class {{ cookiecutter.class_name }}(FeatureModel):
    """Moments of neighbours as features."""

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        moments = Moments(hypers.cutoff, hypers.n_radial, hypers.n_channels)
        super().__init__(dataset_info, moments.n_features)
        self.moments = moments
        self.cutoff = hypers.cutoff
        self.interaction_range = hypers.cutoff

    def features(self, graph: AtomGraph) -> Tensor:
        """``[n_atoms, n_features]``"""
        return self.moments(graph)[0]

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """New elements have weights already, by atomic number: all that is learnt is taken over."""
        growth.take_over(self, trained)
