"""The module inside an exported model: metatomic's systems in, metatensor's maps out.

No ``from __future__ import annotations`` here: TorchScript and metatomic read the annotations.
"""

from dataclasses import replace
from typing import Dict, List, Optional, Tuple

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System
from torch import Tensor, nn

from atomtrain.graph import AtomGraph, sum_over_structures
from atomtrain.model.export.hessian import displaced, pair_labels, second_derivatives
from atomtrain.model.inputs import inputs_of
from atomtrain.model.predictor import Predictor
from atomtrain.targets import DatasetInfo, TargetInfo, ensemble_name, hessian_name, uncertainty_name
from atomtrain.targets.maps import map_labels


class ExportedModel(nn.Module):
    """A :class:`~atomtrain.model.Predictor` behind metatomic's ``ModelInterface``.

    Pair vectors are taken from the neighbour list block, because that is where metatomic hangs the
    gradient with respect to positions and cell. Systems come and results go in float64, which energies
    of thousands of eV need; in between, the network computes in the precision it was trained in. A run
    on one small molecule is all overhead, hence the path without concatenation and the labels kept
    between calls.
    """

    pooled: List[str]
    _of_atoms: Dict[str, str]
    _energies: Dict[str, str]
    inputs: List[str]
    _input_of_atoms: List[bool]
    _widths: List[int]
    _units: List[str]
    _labels: Dict[str, Tuple[Labels, List[List[Labels]], List[Labels]]]
    _system_samples: Labels
    _device: torch.device

    def __init__(self, predictor: Predictor, dtype: torch.dtype) -> None:
        super().__init__()
        self.predictor = predictor
        self.register_buffer("_network", torch.zeros(0, dtype=dtype))  # of this precision
        self._network: Tensor
        self._neighbors = NeighborListOptions(
            cutoff=float(predictor.model.cutoff), full_list=True, strict=True
        )
        wanted = inputs_of(predictor.model)
        self.inputs = list(wanted)
        self._input_of_atoms = [one.per_atom for one in wanted.values()]
        self._widths = [one.width for one in wanted.values()]
        self._units = [one.unit for one in wanted.values()]
        targets = predictor.dataset_info.targets
        self.pooled = [name for name in targets if targets[name].pooled]
        # of each output: keys, and components and properties of its blocks
        self._labels = {name: map_labels(target) for name, target in targets.items()}
        of_structures = predictor.model.structure_outputs()
        self.pooled += list(of_structures)
        self._of_atoms = predictor.model.atom_outputs()
        self._energies = {hessian_name(name): name for name in predictor.hessians}
        for output in self._energies:
            axes = [Labels.range("xyz_1", 3), Labels.range("xyz_2", 3)]
            keys = Labels("_", torch.tensor([[0]]))
            self._labels[output] = (keys, [axes], [Labels.range("energy", 1)])
        for name, width in {**predictor.model.feature_outputs(), **of_structures}.items():
            of = related_target(name, predictor.dataset_info)
            if of is not None:  # laid out as the target is
                self._labels[name] = map_labels(replace(of, num_subtargets=width, gradients=()))
                continue
            key = Labels("_", torch.tensor([[0]]))
            self._labels[name] = (key, [[]], [Labels.range("feature", width)])
        self._device = torch.device("cpu")
        self._system_samples = _system_labels(1, self._device)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        """One full, strict list at the model's cutoff."""
        return [self._neighbors]

    def requested_inputs(self) -> Dict[str, ModelOutput]:
        """What the model takes beside atoms (:meth:`atomtrain.model.Model.extra_inputs`)."""
        found: Dict[str, ModelOutput] = {}
        for k, name in enumerate(self.inputs):
            kind = "atom" if self._input_of_atoms[k] else "system"
            found[name] = ModelOutput(unit=self._units[k], sample_kind=kind)
        return found

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels],
    ) -> Dict[str, TensorMap]:
        """See metatomic's ``ModelInterface.forward``. ValueError where two atoms are in one place.

        Per-atom samples come in the order of ``selected_atoms``, or of the systems; structures none
        of whose atoms are selected have the value zero. A Hessian is of what the energy would be, of these atoms
        alone, in the positions of all.
        """
        graph = self._graph(systems)
        self._add_inputs(graph, systems)
        _refuse_coincident(graph)
        self._move_labels(graph.positions.device)
        n_systems = len(systems)
        structure = graph.structure  # of the atoms asked for
        rows: Optional[Tensor] = None  # these atoms as rows of the batch
        if selected_atoms is not None:
            chosen = selected_atoms.values.to(torch.int64)
            structure = chosen[:, 0]
            rows = _rows(systems, chosen)
            selected = torch.zeros_like(graph.types, dtype=torch.bool)
            graph.extras["atomtrain::selected"] = selected.index_fill(0, rows, 1)
        results = self._hessians(outputs, graph, systems, rows)
        names = self._called(outputs, graph)
        if len(names) == 0:
            return results
        predictions = self.predictor(graph, list(names.values()))

        atoms = selected_atoms  # samples of per-atom outputs, made when first needed
        for name, called in names.items():
            output = outputs[name]
            if called not in predictions:
                raise ValueError("this model does not predict '" + name + "'")
            blocks = predictions[called]
            samples = self._samples_of_systems(n_systems)
            if called in self.pooled:
                if output.sample_kind == "atom":
                    raise ValueError("'" + name + "' belongs to structures, not to their atoms")
            else:
                if rows is not None:
                    blocks = [values.index_select(0, rows) for values in blocks]
                if output.sample_kind == "atom":
                    if atoms is None:
                        atoms = _atom_labels(systems, graph.structure)
                    samples = atoms
                elif n_systems == 1:
                    blocks = [values.sum(0, keepdim=True) for values in blocks]
                else:
                    blocks = [sum_over_structures(v, structure, n_systems) for v in blocks]
            results[name] = self._map(name, blocks, samples, systems[0].positions.dtype)
        return results

    def _called(self, outputs: Dict[str, ModelOutput], graph: AtomGraph) -> Dict[str, str]:
        """By output what the predictor calls it, which knows no Hessians.

        The graph is told where atoms are asked for one by one.
        """
        names: Dict[str, str] = {}
        for name, output in outputs.items():
            if name in self._energies:
                continue
            names[name] = name
            if output.sample_kind == "atom":
                graph.extras["atomtrain::per_atom"] = graph.types[:0]
                if name in self._of_atoms:
                    names[name] = self._of_atoms[name]
        return names

    def _hessians(
        self,
        outputs: Dict[str, ModelOutput],
        graph: AtomGraph,
        systems: List[System],
        rows: Optional[Tensor],
    ) -> Dict[str, TensorMap]:
        """Those that are asked for."""
        found: Dict[str, TensorMap] = {}
        for name, output in outputs.items():
            if name in self._energies:
                if output.sample_kind == "atom":
                    raise ValueError("'" + name + "' belongs to structures, not to their atoms")
                hessian = self._hessian(self._energies[name], graph, systems, rows)
                samples = pair_labels([len(system) for system in systems], graph.positions.device)
                found[name] = self._map(name, [hessian], samples, systems[0].positions.dtype)
        return found

    def _hessian(
        self, energy: str, graph: AtomGraph, systems: List[System], rows: Optional[Tensor]
    ) -> Tensor:
        """``[sum of n^2, 3, 3, 1]``: see :func:`second_derivatives`. Engines may have switched autograd off."""
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        moved, steps = displaced(graph)
        values = self.predictor(moved, [energy])[energy][0]
        if rows is not None:
            values = values.index_select(0, rows)
        counts = [len(system) for system in systems]
        hessian = second_derivatives(values.sum(), steps, counts).detach()
        torch.set_grad_enabled(before)
        return hessian.unsqueeze(-1)

    def _map(
        self, name: str, blocks: List[Tensor], samples: Labels, dtype: torch.dtype
    ) -> TensorMap:
        """The map of one output."""
        keys, components, properties = self._labels[name]
        made: List[TensorBlock] = []
        for k, values in enumerate(blocks):
            made.append(TensorBlock(values.to(dtype), samples, components[k], properties[k]))
        return TensorMap(keys, made)

    def _add_inputs(self, graph: AtomGraph, systems: List[System]) -> None:
        """What else the model takes goes with the graph."""
        for k, name in enumerate(self.inputs):
            graph.extras[name] = self._input(k, systems)

    def _input(self, k: int, systems: List[System]) -> Tensor:
        """What engines give of an input, [n_systems or n_atoms, width]. ValueError where they do not."""
        name, parts = self.inputs[k], torch.jit.annotate(List[Tensor], [])
        for system in systems:
            if name not in system.known_data():
                raise ValueError(
                    "this model needs the input '"
                    + name
                    + "' of every system, and the engine does not give it"
                )
            values = system.get_data(name).block().values
            rows = len(system) if self._input_of_atoms[k] else 1
            if values.numel() != rows * self._widths[k]:
                raise ValueError(
                    "the input '" + name + "' should have " + str(rows) + " x " + str(self._widths[k])
                    + " values for a system, and has the shape " + str(values.shape)
                )  # fmt: skip
            parts.append(values.reshape(rows, self._widths[k]))
        return torch.cat(parts).to(self._network.dtype)

    def _graph(self, systems: List[System]) -> AtomGraph:
        """The systems as one batch."""
        if len(systems) == 0:
            raise ValueError("the model was called without any system")
        blocks = [system.get_neighbor_list(self._neighbors) for system in systems]
        dtype = self._network.dtype
        if len(systems) == 1:
            return _graph_of_one(systems[0], blocks[0], dtype)
        positions = torch.cat([system.positions for system in systems]).to(dtype)
        device = positions.device
        counts = torch.tensor([len(system) for system in systems], device=device)
        n_pairs = torch.tensor([block.values.shape[0] for block in blocks], device=device)
        pairs = torch.cat([block.samples.values for block in blocks]).to(torch.int64)
        first_of_pair = torch.repeat_interleave(_first_atoms(systems), n_pairs)
        extras: Dict[str, Tensor] = {}
        return AtomGraph(
            positions=positions,
            types=torch.cat([system.types for system in systems]).to(torch.int64),
            cells=torch.stack([system.cell for system in systems]).to(dtype),
            pbc=torch.stack([system.pbc for system in systems]),
            structure=torch.repeat_interleave(torch.arange(len(systems), device=device), counts),
            centers=pairs[:, 0] + first_of_pair,
            neighbors=pairs[:, 1] + first_of_pair,
            shifts=pairs[:, 2:].to(dtype),
            vectors=torch.cat([block.values for block in blocks]).squeeze(-1).to(dtype),
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
        for name, (keys, components, properties) in self._labels.items():
            moved: List[List[Labels]] = []
            for axes in components:
                moved.append([labels.to(device) for labels in axes])
            of_blocks = [labels.to(device) for labels in properties]
            self._labels[name] = (keys.to(device), moved, of_blocks)


def related_target(output: str, dataset_info: DatasetInfo) -> Optional[TargetInfo]:
    """The target whose standard deviation, or ensemble, a model's output is."""
    targets = dataset_info.targets.items()
    named = {f(name): target for f in (uncertainty_name, ensemble_name) for name, target in targets}
    return named.get(output)


def _system_labels(n_systems: int, device: torch.device) -> Labels:
    values = torch.arange(n_systems, dtype=torch.int32, device=device).reshape(-1, 1)
    return Labels(["system"], values, assume_unique=True)


def _refuse_coincident(graph: AtomGraph, closest: float = 1e-6) -> None:
    """Two atoms in one place have no energy: better an error than NaN, which many take for a number.

    ``closest``: the distance below which directions are rounding, in the length unit of the model.
    """
    close = (graph.vectors.detach().square().sum(1) < closest**2).nonzero()
    if close.shape[0] > 0:
        pair = int(close[0, 0])
        i, j = int(graph.centers[pair]), int(graph.neighbors[pair])
        system = graph.structure[i]
        first = int(torch.searchsorted(graph.structure, system))
        raise ValueError(
            "atoms " + str(i - first) + " and " + str(j - first) + " of system " + str(int(system))
            + " are in the same place: their energy is not defined"
        )  # fmt: skip


def _graph_of_one(system: System, block: TensorBlock, dtype: torch.dtype) -> AtomGraph:
    """A batch of one system, whose pairs are in ``block``."""
    pairs = block.samples.values.to(torch.int64)  # [n_pairs, 5]
    positions = system.positions.to(dtype)
    n_atoms, device = positions.shape[0], positions.device
    extras: Dict[str, Tensor] = {}
    return AtomGraph(
        positions=positions,
        types=system.types.to(torch.int64),
        cells=system.cell.unsqueeze(0).to(dtype),
        pbc=system.pbc.unsqueeze(0),
        structure=torch.zeros(n_atoms, dtype=torch.int64, device=device),
        centers=pairs[:, 0],
        neighbors=pairs[:, 1],
        shifts=pairs[:, 2:].to(dtype),
        vectors=block.values.squeeze(-1).to(dtype),
        extras=extras,
    )


def _first_atoms(systems: List[System]) -> Tensor:
    """Row of the first atom of each system in the batch, [n_systems] int64."""
    counts = torch.tensor([len(system) for system in systems], device=systems[0].device)
    return counts.cumsum(0) - counts


def _rows(systems: List[System], atoms: Tensor) -> Tensor:
    """Rows in the batch of ``atoms [n, 2]``: system, and atom in it."""
    if len(systems) == 1:
        return atoms[:, 1]
    return atoms[:, 1] + _first_atoms(systems).index_select(0, atoms[:, 0])


def _atom_labels(systems: List[System], structure: Tensor) -> Labels:
    """``system``, ``atom`` of every atom in the batch."""
    atoms = torch.arange(structure.shape[0], device=structure.device)
    if len(systems) > 1:
        atoms = atoms - _first_atoms(systems).index_select(0, structure)
    values = torch.stack([structure, atoms], 1).to(torch.int32)
    return Labels(["system", "atom"], values, assume_unique=True)
