"""The module inside an exported model: metatomic's systems in, metatensor's maps out.

No ``from __future__ import annotations`` here: TorchScript and metatomic read the annotations.
"""

from typing import Dict, List, Optional

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System
from torch import Tensor, nn

from atomtrain.graph import AtomGraph, sum_over_structures
from atomtrain.model.predictor import Predictor
from atomtrain.targets import TargetInfo
from atomtrain.targets.maps import map_labels


class ExportedModel(nn.Module):
    """A :class:`~atomtrain.model.Predictor` behind metatomic's ``ModelInterface``.

    Pair vectors are taken from the neighbour list block, because that is where metatomic hangs the
    gradient with respect to positions and cell. Sums over atoms are done in float64 (compositions may
    be thousands of eV), the results are in the dtype of the systems. A run on one small molecule is
    all overhead, hence the path without concatenation and the labels kept between calls.
    """

    pooled: List[str]
    _keys: Dict[str, Labels]
    _components: Dict[str, List[List[Labels]]]
    _properties: Dict[str, List[Labels]]
    _system_samples: Labels
    _device: torch.device

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor
        self._neighbors = NeighborListOptions(
            cutoff=float(predictor.model.cutoff), full_list=True, strict=True
        )
        targets = predictor.dataset_info.targets
        self.pooled = [name for name in targets if targets[name].pooled]
        self._keys = {}
        self._components = {}
        self._properties = {}
        for target in predictor.dataset_info.targets.values():
            self._describe(target)
        of_structures = predictor.model.structure_outputs()
        self.pooled += list(of_structures)
        for name, width in {**predictor.model.feature_outputs(), **of_structures}.items():
            self._keys[name] = Labels("_", torch.tensor([[0]]))
            self._properties[name] = [Labels.range("feature", width)]
            self._components[name] = [[]]
        self._device = torch.device("cpu")
        self._system_samples = _system_labels(1, self._device)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        """One full, strict list at the model's cutoff."""
        return [self._neighbors]

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels],
    ) -> Dict[str, TensorMap]:
        """See metatomic's ``ModelInterface.forward``.

        Per-atom samples come in the order of ``selected_atoms``, or of the systems; structures none
        of whose atoms are selected have the value zero.
        """
        graph = self._graph(systems)
        self._move_labels(graph.positions.device)
        n_systems = len(systems)

        rows: Optional[Tensor] = None  # the selected atoms as rows of the batch
        structure = graph.structure
        if selected_atoms is not None:
            chosen = selected_atoms.values.to(torch.int64)
            structure, atoms = chosen[:, 0], chosen[:, 1]
            rows = (
                atoms
                if n_systems == 1
                else atoms + _first_atoms(systems).index_select(0, structure)
            )

        if rows is not None:
            selected = torch.zeros_like(graph.types, dtype=torch.bool)
            graph.extras["atomtrain::selected"] = selected.index_fill(0, rows, 1)
        predictions = self.predictor(graph, list(outputs.keys()))

        samples: Optional[Labels] = None  # those of per-atom outputs, made when first needed
        results: Dict[str, TensorMap] = {}
        for name, output in outputs.items():
            if name not in predictions:
                raise ValueError("this model does not predict '" + name + "'")
            per_atom = output.sample_kind == "atom"
            pooled = name in self.pooled
            if pooled and per_atom:
                raise ValueError("'" + name + "' belongs to structures, not to their atoms")
            blocks: List[TensorBlock] = []
            for k, predicted in enumerate(predictions[name]):
                values = predicted
                if rows is not None and not pooled:
                    values = values.index_select(0, rows)
                if per_atom:
                    if samples is None:
                        samples = selected_atoms
                    if samples is None:
                        samples = _atom_labels(systems, graph.structure)
                    block_samples = samples
                else:
                    block_samples = self._samples_of_systems(n_systems)
                    if pooled:
                        pass
                    elif n_systems == 1:
                        values = values.sum(0, keepdim=True)
                    else:
                        values = sum_over_structures(values, structure, n_systems)
                blocks.append(
                    TensorBlock(
                        values=values.to(graph.positions.dtype),
                        samples=block_samples,
                        components=self._components[name][k],
                        properties=self._properties[name][k],
                    )
                )
            results[name] = TensorMap(self._keys[name], blocks)
        return results

    def _graph(self, systems: List[System]) -> AtomGraph:
        """The systems as one batch."""
        extras: Dict[str, Tensor] = {}
        if len(systems) == 1:
            system = systems[0]
            block = system.get_neighbor_list(self._neighbors)
            pairs = block.samples.values.to(torch.int64)  # [n_pairs, 5]
            positions = system.positions
            return AtomGraph(
                positions=positions,
                types=system.types.to(torch.int64),
                cells=system.cell.unsqueeze(0),
                pbc=system.pbc.unsqueeze(0),
                structure=torch.zeros(
                    positions.shape[0], dtype=torch.int64, device=positions.device
                ),
                centers=pairs[:, 0],
                neighbors=pairs[:, 1],
                shifts=pairs[:, 2:].to(positions.dtype),
                vectors=block.values.squeeze(-1),
                extras=extras,
            )

        if len(systems) == 0:
            raise ValueError("the model was called without any system")
        positions_list: List[Tensor] = []
        types_list: List[Tensor] = []
        cells_list: List[Tensor] = []
        pbc_list: List[Tensor] = []
        vectors_list: List[Tensor] = []
        pairs_list: List[Tensor] = []
        n_atoms: List[int] = []
        n_pairs: List[int] = []
        for system in systems:
            block = system.get_neighbor_list(self._neighbors)
            positions_list.append(system.positions)
            types_list.append(system.types)
            cells_list.append(system.cell)
            pbc_list.append(system.pbc)
            vectors_list.append(block.values)
            pairs_list.append(block.samples.values)
            n_atoms.append(len(system))
            n_pairs.append(block.values.shape[0])
        positions = torch.cat(positions_list)
        device = positions.device
        first = _first_atoms(systems)
        indices = torch.arange(len(systems), device=device)
        pairs = torch.cat(pairs_list).to(torch.int64)
        first_of_pair = torch.repeat_interleave(first, torch.tensor(n_pairs, device=device))
        return AtomGraph(
            positions=positions,
            types=torch.cat(types_list).to(torch.int64),
            cells=torch.stack(cells_list),
            pbc=torch.stack(pbc_list),
            structure=torch.repeat_interleave(indices, torch.tensor(n_atoms, device=device)),
            centers=pairs[:, 0] + first_of_pair,
            neighbors=pairs[:, 1] + first_of_pair,
            shifts=pairs[:, 2:].to(positions.dtype),
            vectors=torch.cat(vectors_list).squeeze(-1),
            extras=extras,
        )

    def _samples_of_systems(self, n_systems: int) -> Labels:
        """``system`` = 0, 1, ...; kept for the next call."""
        if len(self._system_samples) != n_systems:
            self._system_samples = _system_labels(n_systems, self._device)
        return self._system_samples

    def _move_labels(self, device: torch.device) -> None:
        """Labels are no buffers: they follow the systems when a call comes from another device."""
        if device == self._device:
            return
        self._device = device
        self._system_samples = self._system_samples.to(device)
        for name, keys in self._keys.items():
            self._keys[name] = keys.to(device)
            self._properties[name] = [labels.to(device) for labels in self._properties[name]]
            moved: List[List[Labels]] = []
            for components in self._components[name]:
                moved.append([labels.to(device) for labels in components])
            self._components[name] = moved

    @torch.jit.unused
    def _describe(self, target: TargetInfo) -> None:
        """Make the labels of a target's blocks."""
        keys, components, properties = map_labels(target)
        self._keys[target.name] = keys
        self._components[target.name] = components
        self._properties[target.name] = properties


def _system_labels(n_systems: int, device: torch.device) -> Labels:
    values = torch.arange(n_systems, dtype=torch.int32, device=device).reshape(-1, 1)
    return Labels(["system"], values, assume_unique=True)


def _first_atoms(systems: List[System]) -> Tensor:
    """Row of the first atom of each system in the batch, [n_systems] int64."""
    first: List[int] = []
    total = 0
    for system in systems:
        first.append(total)
        total += len(system)
    return torch.tensor(first, dtype=torch.int64, device=systems[0].device)


def _atom_labels(systems: List[System], structure: Tensor) -> Labels:
    """``system``, ``atom`` of every atom in the batch."""
    atoms = torch.arange(structure.shape[0], device=structure.device)
    if len(systems) > 1:
        atoms = atoms - _first_atoms(systems).index_select(0, structure)
    values = torch.stack([structure, atoms], 1).to(torch.int32)
    return Labels(["system", "atom"], values, assume_unique=True)
