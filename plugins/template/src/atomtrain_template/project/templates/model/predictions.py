"""The model: features of neighbours, and what each target is made of them."""

from typing import Dict, List

import torch
from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model import Growth, Model
from atomtrain.targets import DatasetInfo, TargetInfo
from torch import Tensor, nn

from {{ cookiecutter.package }}.descriptor import Descriptor
from {{ cookiecutter.package }}.hypers import ModelHypers


class {{ cookiecutter.class_name }}(Model):
    """A :class:`Readout` per target."""

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        super().__init__()
        self.cutoff = hypers.cutoff
        self.interaction_range = hypers.cutoff
        self.descriptor = Descriptor(hypers.cutoff, hypers.n_radial, hypers.n_channels)
        self.heads = nn.ModuleDict()  # what is called heads belongs to targets
        self.retarget(dataset_info)

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """The blocks of the wanted targets, each ``[n_atoms, *components, n_properties]``."""
        features, vectors, matrices = self.descriptor(graph)
        predictions: Dict[str, List[Tensor]] = {}
        if "feature" in outputs:
            predictions["feature"] = [features]
        for name, head in self.heads.items():
            if name in outputs:
                predictions[name] = [head(features, vectors, matrices)]
        return predictions

    @torch.jit.ignore
    def feature_outputs(self) -> Dict[str, int]:
        """The features are offered too."""
        return {"feature": self.descriptor.n_features}

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        """New targets get new heads, those that are gone lose theirs."""
        for name in list(self.heads):
            if name not in dataset_info.targets:
                del self.heads[name]
        for name, target in dataset_info.targets.items():
            if name not in self.heads:
                like = self.descriptor.elements
                head = Readout(target, self.descriptor.n_features, self.descriptor.n_channels)
                self.heads[name] = head.to(like.device, like.dtype)

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """New elements have weights already, by atomic number: all that is learnt is taken over."""
        growth.take_over(self, trained)


class Readout(nn.Module):
    """One target: a scalar, a vector or a symmetric matrix of each atom."""

    def __init__(self, target: TargetInfo, n_features: int, n_channels: int) -> None:
        super().__init__()
        self.rank = target.rank if target.kind == "cartesian" else 0
        if self.rank > 2:
            raise TargetError(f"target '{target.name}': rank {self.rank} is beyond this model")
        n = target.num_subtargets
        self.scalar = nn.Sequential(
            nn.Linear(n_features, 64), nn.SiLU(), nn.Linear(64, n_channels if self.rank > 0 else n)
        )
        self.trace = nn.Linear(n_features, n)
        self.mix = nn.Linear(n_channels, n, bias=False)

    def forward(self, features: Tensor, vectors: Tensor, matrices: Tensor) -> Tensor:
        """The target's block, ``[n_atoms, (3, (3,)) n_properties]``."""
        scalar: Tensor = self.scalar(features)
        if self.rank == 0:
            return scalar
        if self.rank == 1:
            vector: Tensor = self.mix(vectors * scalar.unsqueeze(1))
            return vector
        identity = torch.eye(3, dtype=scalar.dtype, device=scalar.device)
        trace: Tensor = identity.unsqueeze(2) * self.trace(features).unsqueeze(1).unsqueeze(1)
        traceless: Tensor = self.mix(matrices * scalar.unsqueeze(1).unsqueeze(1))
        return traceless + trace
