"""Structures and an architecture for the core's own tests: no plugin is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from atomtrain.data import StructureStore
from atomtrain.graph import AtomGraph
from atomtrain.model import PotentialModel
from atomtrain.targets import DatasetInfo, TargetInfo


def store_of(frames: list[Atoms]) -> StructureStore:
    """Structures without labels."""
    counts = np.cumsum([0] + [len(a) for a in frames])
    return StructureStore(
        torch.from_numpy(np.concatenate([a.positions for a in frames])),
        torch.from_numpy(np.concatenate([a.numbers for a in frames]).astype(np.int64)),
        torch.from_numpy(np.stack([np.array(a.cell.array) for a in frames])),
        torch.from_numpy(np.stack([a.pbc for a in frames])),
        torch.from_numpy(counts.astype(np.int64)),
    )


def energy_info(types: tuple[int, ...] = (1, 6, 8)) -> DatasetInfo:
    target = TargetInfo("energy", quantity="energy", unit="eV", gradients=("forces", "strain"))
    return DatasetInfo("angstrom", types, {"energy": target})


class Pairwise(PotentialModel):
    """A smooth pair potential: the smallest architecture there is."""

    def __init__(self, dataset_info: DatasetInfo, cutoff: float = 4.0) -> None:
        super().__init__(dataset_info)
        self.cutoff = cutoff
        self.interaction_range = cutoff
        self.strength = torch.nn.Parameter(torch.ones(1))

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        x = (graph.vectors.square().sum(1) / self.cutoff**2).clamp(max=1.0)
        pairs = self.strength * (1.0 - x) ** 3
        zero = torch.zeros_like(graph.positions[:, 0])
        return zero.index_add(0, graph.centers, pairs)


def install(
    site: Path,
    name: str,
    source: str,
    group: str = "atomtrain.architectures",
    entry: str | None = None,
    requires: str = "",
) -> None:
    """Install a distribution ``name`` 1.0 with one module, as importlib.metadata sees it."""
    module = name.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    if requires:
        metadata += f"Requires-Dist: {requires}\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry or name} = {module}\n")
    (site / f"{module}.py").write_text(source)


GOOD = """
from atomtrain.contract import ArchitectureInfo, hookimpl
def hypers():
    from atomtrain.options import Section
    return Section
@hookimpl
def describe_architecture():
    return ArchitectureInfo(name="{name}", summary="s", model_hypers=hypers,
                            trainer_hypers=hypers, aliases=("old-name",), model_version=3)
@hookimpl
def build_model(hypers):
    {build}
"""


def good(name: str, build: str = "return 1") -> str:
    return GOOD.format(name=name, build=build)
