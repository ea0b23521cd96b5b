"""The readout of one energy, from all layers, by mace's blocks.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Dict, List

import torch
from torch import Tensor, nn

from atomtrain.graph import AtomGraph
from atomtrain_mace.blocks import building, modules, o3
from atomtrain_mace.hypers import ModelHypers, parse_irreps


class EnergyReadout(nn.Module):
    """Linear readouts of all layers but the last, and a small network for that one (linear too if it is the only one).

    Features of a layer that turn with the structure have no part in an energy: the blocks are those of its scalars
    alone; they have the same weights. ``scale`` is MACE's: as large as forces, or energies, are; it is set before
    the training.
    """

    def __init__(self, hypers: ModelHypers) -> None:
        super().__init__()
        self.channels = parse_irreps(hypers.hidden_irreps)[0][0]
        self.neurons = parse_irreps(hypers.MLP_irreps)[0][0]
        last = hypers.num_interactions - 1
        self.read: List[int] = [] if hypers.use_last_readout_only else list(range(last))
        if last == 0:
            self.read = [0]
        scalars, neurons = o3.Irreps(f"{self.channels}x0e"), o3.Irreps(hypers.MLP_irreps)
        gate = modules.gate_dict[hypers.gate]
        with building():
            self.linear = nn.ModuleList(modules.LinearReadoutBlock(scalars) for _ in self.read)
            networks = [modules.NonLinearReadoutBlock(scalars, neurons, gate)] if last else []
            self.network = nn.ModuleList(
                networks
            )  # one at most; TorchScript knows no absent module
        self.width = self.channels * len(self.linear) + self.neurons * len(self.network)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.scale: Tensor

    def hidden(self, graph: AtomGraph, invariant: Tensor) -> Tensor:
        """What is read: scalars of layers, and neurons on those of the last."""
        parts: List[Tensor] = []
        for layer in self.read:
            parts.append(invariant[:, layer * self.channels : (layer + 1) * self.channels])
        for network in self.network:
            x = network.linear_1(invariant[:, -self.channels :])  # type: ignore[operator]
            parts.append(network.non_linearity(x))  # type: ignore[operator]
        return torch.cat(parts, dim=1)

    def forward(self, hidden: Tensor, equivariant: Dict[int, Tensor]) -> List[Tensor]:
        """One block ``[n_atoms, 1]``."""
        return [self.scale * self.read_off(hidden)]

    def read_off(self, hidden: Tensor) -> Tensor:
        """The last, linear layers, ``[n_atoms, 1]``."""
        energy = torch.zeros_like(hidden[:, :1])
        start = 0
        for block in self.linear:
            energy = energy + block(hidden[:, start : start + self.channels], None)
            start += self.channels
        for network in self.network:
            energy = energy + network.linear_2(hidden[:, start:])  # type: ignore[operator]
        return energy

    @torch.jit.ignore
    def weights(self) -> Tensor:
        """Of what is read, ``[1, width]``."""
        return self.scale * self.read_off(torch.eye(self.width).to(self.scale)).T
