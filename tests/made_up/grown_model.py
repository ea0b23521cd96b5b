"""The three versions of :mod:`grown_arch`'s model: the same function, stored differently."""

import torch
from tiny_model import Tiny
from torch import Tensor, nn

from atomtrain.graph import AtomGraph
from atomtrain.targets import DatasetInfo


class Grown(Tiny):
    def __init__(self, dataset_info: DatasetInfo, amplitude: float) -> None:
        super().__init__(dataset_info)
        self.amplitude = amplitude


class Version1(Grown):
    def __init__(self, dataset_info: DatasetInfo, amplitude: float) -> None:
        super().__init__(dataset_info, amplitude)
        self.strength = nn.Parameter(torch.linspace(0.5, 1.5, 120))

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return self.amplitude * values * self.strength.index_select(0, graph.types).unsqueeze(1)


class Version2(Grown):
    def __init__(self, dataset_info: DatasetInfo, amplitude: float) -> None:
        super().__init__(dataset_info, amplitude)
        self.factors = nn.Parameter(torch.linspace(0.5, 1.5, 120))

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return self.amplitude * values * self.factors.index_select(0, graph.types).unsqueeze(1)


class Version3(Grown):
    def __init__(self, dataset_info: DatasetInfo, amplitude: float) -> None:
        super().__init__(dataset_info, amplitude)
        self.factors = nn.Parameter(torch.linspace(0.5, 1.5, 120).unsqueeze(1))

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return self.amplitude * values * self.factors.index_select(0, graph.types)
