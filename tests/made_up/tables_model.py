"""The model of :mod:`tables_arch`."""

from typing import Dict, List

import torch
from torch import Tensor

from atomtrain.graph import AtomGraph
from atomtrain.model import Model
from atomtrain.targets import DatasetInfo, TargetInfo


class Head(torch.nn.Module):
    """``a[element] + b[element] * density of neighbours`` for every number of a target."""

    def __init__(self, target: TargetInfo) -> None:
        super().__init__()
        self.shapes: List[List[int]] = [list(block.shape) for block in target.blocks]
        self.table = torch.nn.Embedding(100, target.width)
        self.slope = torch.nn.Embedding(100, target.width)

    def forward(self, types: Tensor, density: Tensor) -> List[Tensor]:
        row = self.table(types) + self.slope(types) * density.unsqueeze(1)
        blocks: List[Tensor] = []
        start = 0
        for shape in self.shapes:
            width = 1
            for size in shape:
                width *= size
            blocks.append(row[:, start : start + width].reshape([-1] + shape))
            start += width
        return blocks


class Tables(Model):
    """A :class:`Head` per target."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__()
        self.cutoff = 3.0
        self.interaction_range = 3.0
        self.heads = torch.nn.ModuleDict({n: Head(t) for n, t in dataset_info.targets.items()})

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        pairs = (1.0 - graph.vectors.square().sum(1) / 9.0).clamp(min=0.0) ** 3
        density = torch.zeros_like(graph.positions[:, 0]).index_add(0, graph.centers, pairs)
        results: Dict[str, List[Tensor]] = {}
        for name, head in self.heads.items():
            if name in outputs:
                results[name] = head(graph.types, density)
        return results
