"""Total charge and spin multiplicity in a network: what they add in its first layer.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Dict, List, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from atomtrain.graph import AtomGraph
from atomtrain.model import STANDARD, ExtraInput
from atomtrain_density.elements import LinearBySpecies

WIDTH = 16
"""numbers in which the inputs of a structure are embedded"""


class InputShift(nn.Module):
    """What inputs of whole structures add to the neurons of a first layer, by the element of the atom.

    Features and embedded inputs side by side are what the layer sees; its part for the latter is this. The embedding is
    a layer of the values, so that these may be any numbers, and 0 for a neutral singlet. ``names`` are metatomic's.
    """

    def __init__(self, names: Sequence[str], n_species: int, n_out: int) -> None:
        super().__init__()
        self.names: List[str] = list(names)
        self.n_species = n_species
        self.embedding = nn.Linear(len(self.names), WIDTH)
        self.linear = LinearBySpecies(n_species, WIDTH, n_out)
        self.usual: Tensor
        usual = torch.tensor([[STANDARD[name].examples[0] for name in self.names]])
        self.register_buffer("usual", usual, persistent=False)

    def forward(self, graph: AtomGraph, species: Tensor) -> Tensor:
        """``[n_atoms, n_out]``, atoms as they are in the batch; ``species [n_atoms]`` counts from 0."""
        columns: List[Tensor] = []
        for name in self.names:
            columns.append(graph.extras[name])
        values = torch.cat(columns, dim=1)  # [n_structures, n_inputs]
        embedded = silu(self.embedding(values)) - silu(self.embedding(self.usual))
        weight = self.linear.weight.flatten(0, 1)
        table = torch.mm(embedded, weight.t())  # [n_structures, n_species * n_out]
        table = table.reshape(values.shape[0] * self.n_species, -1)
        return table.index_select(0, graph.structure * self.n_species + species)

    @torch.jit.ignore
    def declared(self) -> Dict[str, ExtraInput]:
        """What :meth:`atomtrain.model.Model.extra_inputs` says of them."""
        return {name: STANDARD[name] for name in self.names}
