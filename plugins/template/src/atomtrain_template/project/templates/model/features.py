"""The model: features of atoms, and vectors. The core makes the targets of them."""

from typing import Dict, Tuple

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
        super().__init__(dataset_info, descriptor.n_features, degrees={1: hypers.n_channels})
        self.descriptor = descriptor
        self.cutoff = hypers.cutoff
        self.interaction_range = hypers.cutoff

    def encode(self, graph: AtomGraph) -> Tuple[Tensor, Dict[int, Tensor]]:
        """``[n_atoms, n_features]``, and vectors ``[n_atoms, 3, n_channels]`` as y, z, x.

        A model without vectors says no ``degrees`` and has ``features(graph)`` in place of this.
        """
        features, vectors, _ = self.descriptor(graph)
        return features, {1: vectors.roll(-1, dims=1)}

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """New elements have weights already, by atomic number: all that is learnt is taken over."""
        growth.take_over(self, trained)
