"""MACE as an architecture: mace's blocks from graphs to features, readouts of energies, the core's heads for the rest.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

import math
from dataclasses import replace
from typing import Dict, Iterator, List, Tuple

import torch
from torch import Tensor, nn

from atomtrain.data import Batch
from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph, type_table
from atomtrain.model import FeatureModel, Growth, Model
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain_mace.blocks import compiled, mace_module
from atomtrain_mace.elements import grow
from atomtrain_mace.heads import EnergyReadout
from atomtrain_mace.hypers import ModelHypers, parse_irreps
from atomtrain_mace.repulsion import PairRepulsion


class Mace(FeatureModel):
    """The features of all layers side by side: scalars, and by degree what turns with the structure.

    Modules have mace's names, so that its weights are taken over as they are. e3nn has the components of vectors as
    x, y, z and those of higher degrees accordingly, metatomic as y, z, x. A cyclic exchange of axes is a rotation:
    blocks are given vectors as y, z, x, and everything comes out in metatomic's order.
    """

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        if hypers.num_interactions == 1 and hypers.use_last_readout_only:
            raise TargetError(
                "use_last_readout_only leaves nothing to read where num_interactions is 1; remove it"
            )
        parts = parse_irreps(hypers.hidden_irreps)
        channels, n_layers = parts[0][0], hypers.num_interactions
        turning = n_layers - (0 if hypers.keep_last_layer_irreps and n_layers > 1 else 1)
        slices: List[Tuple[int, int, int]] = []
        start = 0
        for _, degree, parity in parts:
            if degree > 0 and parity == "eo"[degree % 2] and not hypers.use_so3 and turning > 0:
                slices.append((start, start + channels * (2 * degree + 1), degree))
            start += channels * (2 * degree + 1)
        degrees = {degree: channels * turning for _, _, degree in slices}
        super().__init__(replace(dataset_info, targets={}), channels * n_layers, degrees)
        self.hypers = hypers
        self.cutoff: float = hypers.r_max
        self.interaction_range: float = hypers.r_max * n_layers
        self.channels, self.n_layers, self.turning = channels, n_layers, turning
        self.slices = slices
        self.n_types = len(dataset_info.atomic_types)
        self.register_buffer("index", type_table(dataset_info.atomic_types), persistent=False)
        self.index: Tensor
        numbers = torch.tensor(dataset_info.atomic_types)
        self.register_buffer("atomic_numbers", numbers, persistent=False)
        self.atomic_numbers: Tensor
        # e3nn divides sums over the elements by the root of their number, though one of them is what an atom has. It is
        # that of the elements a model was made for at first, so that it may take in others
        n_first = torch.tensor(float(self.n_types), dtype=torch.float64)
        self.register_buffer("n_first", n_first)
        self.n_first: Tensor
        built = mace_module(hypers, dataset_info.atomic_types)
        self.node_embedding: nn.Module = built.node_embedding
        self.spherical_harmonics: nn.Module = built.spherical_harmonics
        self.radial_embedding: nn.Module = built.radial_embedding
        self.interactions: nn.ModuleList = built.interactions
        self.products: nn.ModuleList = built.products
        for interaction in self.interactions:  # a number there, a tensor of checkpoints here
            mean = torch.tensor(float(interaction.avg_num_neighbors), dtype=torch.float64)
            del interaction.avg_num_neighbors
            interaction.register_buffer("avg_num_neighbors", mean)
        if hypers.pair_repulsion:
            self.baseline = PairRepulsion(hypers, dataset_info)
        self.retarget(dataset_info)

    def encode(self, graph: AtomGraph) -> Tuple[Tensor, Dict[int, Tensor]]:
        """See :meth:`FeatureModel.encode`."""
        kinds = self.index.index_select(0, graph.types)
        attrs = torch.nn.functional.one_hot(kinds, self.n_types).to(graph.vectors.dtype)
        edges = torch.stack([graph.neighbors, graph.centers])  # messages go along these
        vectors = (-graph.vectors).roll(-1, 1)
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        harmonics = self.spherical_harmonics(vectors)
        radial, cutoff = self.radial_embedding(lengths, attrs, edges, self.atomic_numbers)
        one_of = attrs * (self.n_types / self.n_first).sqrt().to(attrs.dtype)
        x = self.node_embedding(one_of)
        scalars: List[Tensor] = []
        layers: List[Tensor] = []
        for interaction, product in zip(self.interactions, self.products):  # noqa: B905
            message, residual = interaction(
                node_attrs=one_of,
                node_feats=x,
                edge_attrs=harmonics,
                edge_feats=radial,
                edge_index=edges,
                cutoff=cutoff,
                first_layer=len(layers) == 0,
            )
            x = product(node_feats=message, sc=residual, node_attrs=attrs)
            layers.append(x)
            scalars.append(x[:, : self.channels])
        equivariant: Dict[int, Tensor] = {}
        for start, stop, degree in self.slices:
            found: List[Tensor] = []
            for layer in layers[: self.turning]:
                part = layer[:, start:stop].reshape(-1, self.channels, 2 * degree + 1)
                found.append(part.transpose(1, 2))
            equivariant[degree] = torch.cat(found, dim=2)
        return torch.cat(scalars, dim=1), equivariant

    @torch.jit.ignore
    def make_head(self, target: TargetInfo) -> nn.Module:
        """Energies are read as mace reads them."""
        return EnergyReadout(self.hypers) if target.is_energy else super().make_head(target)

    @torch.jit.ignore
    def last_layer_weights(self, target: str) -> Tensor:
        """See :meth:`Model.last_layer_weights`."""
        head = self.heads[target]
        return (
            head.weights()
            if isinstance(head, EnergyReadout)
            else super().last_layer_weights(target)
        )

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        """Energies that are new get fresh readouts, and the repulsion if the others have it."""
        super().retarget(dataset_info)
        if isinstance(self.baseline, PairRepulsion):
            self.baseline.targets = [t.name for t in dataset_info.targets.values() if t.is_energy]

    @torch.jit.ignore
    @torch.no_grad()
    def calibrate(self, batches: Iterator[Batch]) -> None:
        """The mean number of neighbours of atoms that have any, and the size of forces (without: of energies)."""
        pairs = atoms = 0
        sums: Dict[str, List[Tensor]] = {}
        for batch in batches:
            pairs += len(batch.graph.centers)
            atoms += len(batch.graph.centers.unique())
            for key, label in batch.labels.items():
                mask = batch.masks.get(key)
                kept = label if mask is None else label[mask.expand(label.shape)]
                sums.setdefault(key, []).append(kept.flatten().double())
        if self.hypers.avg_num_neighbors is None and pairs:
            for interaction in self.interactions:
                interaction.avg_num_neighbors.fill_(pairs / atoms)  # type: ignore[operator]
        for name, head in self.heads.items():
            labels = sums.get(f"{name}:forces") or sums.get(name)
            if isinstance(head, EnergyReadout) and labels:
                size = math.sqrt(float(torch.cat(labels).square().mean())) if len(labels) else 0.0
                head.scale.fill_(size if size > 0.0 and math.isfinite(size) else 1.0)

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """See :meth:`Model.grow`."""
        grow(self, trained, growth)

    @torch.jit.ignore
    def before_export(self) -> None:
        """Blocks are compiled as e3nn compiles them; TorchScript takes them as they are."""
        for name, module in list(self.named_children()):
            setattr(self, name, compiled(module))
