"""The smallest architecture that fits every kind of target: tables by element, not equivariant.

Installed by ``install(site, "tables", Path(tables_arch.__file__).read_text())``.
"""

from typing import Any, Dict, List

from atomtrain.contract import ArchitectureInfo, hookimpl


def _section() -> Any:
    from atomtrain.options import Section

    return Section


def _trainer() -> Any:
    from atomtrain.options import TrainerHypers

    return TrainerHypers


@hookimpl
def describe_architecture() -> ArchitectureInfo:
    return ArchitectureInfo(
        name="tables",
        summary="tables by element",
        model_hypers=_section,
        trainer_hypers=_trainer,
        devices=("cpu",),
        target_kinds=("scalar", "cartesian", "spherical"),
    )


@hookimpl
def build_model(dataset_info: Any) -> Any:
    import torch
    from torch import Tensor

    from atomtrain.graph import AtomGraph
    from atomtrain.model import Model

    class Head(torch.nn.Module):
        """``a[element] + b[element] * number of neighbours`` for every number of a target."""

        def __init__(self, target: Any) -> None:
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
        def __init__(self, info: Any) -> None:
            super().__init__()
            self.cutoff = 3.0
            self.interaction_range = 3.0
            self.heads = torch.nn.ModuleDict({n: Head(t) for n, t in info.targets.items()})

        def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
            pairs = (1.0 - graph.vectors.square().sum(1) / 9.0).clamp(min=0.0) ** 3
            density = torch.zeros_like(graph.positions[:, 0]).index_add(0, graph.centers, pairs)
            results: Dict[str, List[Tensor]] = {}
            for name, head in self.heads.items():
                if name in outputs:
                    results[name] = head(graph.types, density)
            return results

        @torch.jit.ignore
        def retarget(self, info: Any) -> None:
            new = {n: Head(t) for n, t in info.targets.items() if n not in self.heads}
            kept = {n: h for n, h in self.heads.items() if n in info.targets}
            self.heads = torch.nn.ModuleDict({**kept, **new})

    return Tables(dataset_info)
