"""The model: a small network on the features of a trained model."""

import torch
from atomtrain.graph import AtomGraph
from atomtrain.model import Backbone, Constants, FeatureModel
from atomtrain.targets import DatasetInfo
from torch import Tensor, nn

from {{ cookiecutter.package }}.hypers import ModelHypers


class {{ cookiecutter.class_name }}(FeatureModel):
    """One layer on a backbone's features; the core's heads make targets of them."""

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo, backbone: Backbone) -> None:
        super().__init__(dataset_info, hypers.n_channels)
        self.backbone = backbone
        self.cutoff = backbone.cutoff
        self.interaction_range = backbone.interaction_range
        self.network = nn.Sequential(
            nn.LayerNorm(backbone.n_features),
            nn.Linear(backbone.n_features, hypers.n_channels),
            nn.SiLU(),
        )

    def features(self, graph: AtomGraph) -> Tensor:
        """``[n_atoms, n_channels]``"""
        features: Tensor = self.network(self.backbone(graph))
        return features

    @torch.jit.ignore
    def constants(self, graph: AtomGraph) -> Constants:
        """The backbone is frozen: its features of a structure are computed once."""
        constants: Constants = self.backbone.constants(graph)
        return constants
