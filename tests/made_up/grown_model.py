"""The three versions of :mod:`grown_arch`'s model: the same function, stored differently."""

import torch
from tiny_model import Tiny
from torch import Tensor, nn

from atomtrain.graph import AtomGraph
from atomtrain.targets import DatasetInfo


class Version1(Tiny):
    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.strength = nn.Parameter(torch.linspace(0.5, 1.5, 120))

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values * self.strength.index_select(0, graph.types).unsqueeze(1)


class Version2(Tiny):
    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.factors = nn.Parameter(torch.linspace(0.5, 1.5, 120))

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values * self.factors.index_select(0, graph.types).unsqueeze(1)


class Version3(Tiny):
    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.factors = nn.Parameter(torch.linspace(0.5, 1.5, 120).unsqueeze(1))

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values * self.factors.index_select(0, graph.types)
