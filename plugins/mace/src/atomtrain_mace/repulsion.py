"""MACE's repulsion of nuclei at short distances, as a baseline.

No ``from __future__ import annotations`` here: TorchScript compiles this module.
"""

from typing import Dict, List

import torch
from torch import Tensor, nn

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph, type_table
from atomtrain.model.base import Baseline
from atomtrain.targets import DatasetInfo
from atomtrain_mace.blocks import building, modules
from atomtrain_mace.hypers import ModelHypers


class PairRepulsion(Baseline):
    """``factor`` times mace's ``ZBLBasis``, for energies in eV. Raises TargetError where there are none.

    ``factor`` is 1, but in models that mace-torch trained: it multiplies the repulsion by the scale of the energies.
    """

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        super().__init__()
        energies = [t for t in dataset_info.targets.values() if t.is_energy]
        self.targets: List[str] = [t.name for t in energies]
        in_ev = all(t.unit == "eV" for t in energies)
        if not energies or not in_ev or dataset_info.length_unit.lower() not in ("angstrom", "a"):
            raise TargetError(
                "pair_repulsion needs targets that are energies in eV, and lengths in angstrom: convert the data, or "
                "leave it out"
            )
        self.cutoff = hypers.r_max
        with building():
            self.pairs: nn.Module = modules.ZBLBasis(p=hypers.num_cutoff_basis)
        self.register_buffer("factor", torch.ones((), dtype=torch.float64))
        self.factor: Tensor
        self.n_types = len(dataset_info.atomic_types)
        self.register_buffer("index", type_table(dataset_info.atomic_types), persistent=False)
        self.index: Tensor
        numbers = torch.tensor(dataset_info.atomic_types)
        self.register_buffer("numbers", numbers, persistent=False)
        self.numbers: Tensor

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, Tensor]:
        """See :meth:`Baseline.forward`."""
        found: Dict[str, Tensor] = {}
        for name in self.targets:
            if name in outputs:
                found[name] = self.energies(graph)
        return found

    def energies(self, graph: AtomGraph) -> Tensor:
        """Energies ``[n_atoms]`` of the atoms in eV, float64."""
        kinds = self.index.index_select(0, graph.types)
        attrs = torch.nn.functional.one_hot(kinds, self.n_types).to(torch.float64)
        vectors = graph.vectors.to(torch.float64)
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        edges = torch.stack([graph.neighbors, graph.centers])
        return self.factor * self.pairs(lengths, attrs, edges, self.numbers)
