"""AtomGraph: a batch of structures as flat tensors. It is all that an architecture ever sees.

The structures of a batch are concatenated atom by atom and pair by pair, so that one tensor
operation serves the whole batch. An :class:`AtomGraph` is a plain NamedTuple because TorchScript
can carry one through an exported model; helpers are functions because it cannot carry methods, and annotated
without ``from __future__ import annotations`` because TorchScript does not resolve strings here.
"""

from typing import Dict, NamedTuple, Sequence

import torch
from torch import Tensor

HOST = "host/"
"""Extras whose names begin like this stay on the CPU, whatever the device of the graph: numbers that a program needs
to know, as how many atoms there are of each element, for which it would have to wait on a GPU."""

DETACHED = "atomtrain::detached"
"""An extra that is there where outputs that are no targets are asked for and nobody differentiates them: energies then
keep their quick way to forces, and what features are used for has no part in it."""


class AtomGraph(NamedTuple):
    """A batch of ``n_structures`` structures with ``n_atoms`` atoms and ``n_pairs`` pairs in all.

    The pair list is full (i-j and j-i), cut at the model's ``cutoff``, and holds periodic images
    (an atom may be its own neighbour). Batches made by :mod:`atomtrain.data` order their pairs by
    center, then by the neighbour's atomic number; an exported model gets them in any order.

    Lengths are in the length unit of the data set (angstrom unless the options say otherwise).
    """

    positions: Tensor
    """[n_atoms, 3]"""
    types: Tensor
    """[n_atoms] int64, atomic numbers"""
    cells: Tensor
    """[n_structures, 3, 3], rows are the cell vectors, zero where not periodic"""
    pbc: Tensor
    """[n_structures, 3] bool"""
    structure: Tensor
    """[n_atoms] int64, the structure each atom belongs to, ascending"""
    centers: Tensor
    """[n_pairs] int64, index of the atom a pair starts from"""
    neighbors: Tensor
    """[n_pairs] int64, index of the atom a pair points to"""
    shifts: Tensor
    """[n_pairs, 3] cell shifts (integers, stored in the float dtype of the positions)"""
    vectors: Tensor
    """[n_pairs, 3], positions[neighbors] - positions[centers] + shifts @ cells"""
    extras: Dict[str, Tensor]
    """further inputs by name: those that :meth:`atomtrain.model.Model.extra_inputs` asks for (``charge``,
    ``spin_multiplicity``), ``[n_structures, width]`` or ``[n_atoms, width]``, other extra data of the options, and what
    :meth:`atomtrain.model.Model.constants` kept for this batch, or :meth:`atomtrain.model.Model.layout` said of it"""


def exchanged(graph: AtomGraph, vectors: Tensor, extras: Dict[str, Tensor]) -> AtomGraph:
    """The graph with these; TorchScript has no ``_replace``."""
    return AtomGraph(
        graph.positions,
        graph.types,
        graph.cells,
        graph.pbc,
        graph.structure,
        graph.centers,
        graph.neighbors,
        graph.shifts,
        vectors,
        extras,
    )


def n_structures(graph: AtomGraph) -> int:
    """Number of structures in the batch."""
    return graph.cells.shape[0]


def type_table(atomic_types: Sequence[int]) -> Tensor:
    """Index of each atomic number among ``atomic_types``, ``[largest + 1]`` int64; -1 for others."""
    index = torch.full((max(atomic_types) + 1,), -1, dtype=torch.int64)
    index[torch.tensor(atomic_types)] = torch.arange(len(atomic_types))
    return index


def volumes(cells: Tensor) -> Tensor:
    """Of ``cells [n, 3, 3]``, ``[n]`` float64; 0 where a structure has none."""
    return torch.linalg.det(cells.to(torch.float64)).abs()


def sum_over_structures(values: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Sum per-atom ``values [n_atoms, ...]`` over each structure: ``[n_structures, ...]``."""
    shape = [n_structures] + list(values.shape[1:])
    return torch.zeros(shape, dtype=values.dtype, device=values.device).index_add(
        0, structure, values
    )


def without_mean(values: Tensor, graph: AtomGraph) -> Tensor:
    """Per-atom ``values [n_atoms, ...]`` minus their mean over each structure."""
    n = n_structures(graph)
    ones = torch.ones_like(graph.structure)
    counts = sum_over_structures(ones, graph.structure, n).clamp(min=1)
    total = sum_over_structures(values, graph.structure, n)
    shape = [n] + [1] * (values.dim() - 1)
    mean = total / counts.to(values.dtype).reshape(shape)
    return values - mean.index_select(0, graph.structure)


def pair_vectors(
    positions: Tensor,
    cells: Tensor,
    structure: Tensor,
    centers: Tensor,
    neighbors: Tensor,
    shifts: Tensor,
) -> Tensor:
    """Vectors ``[n_pairs, 3]`` from centers to neighbours, periodic images included.

    ``index_select`` rather than indexing: its backward is repeatable bit for bit on CPUs.
    """
    pair_cells = cells.index_select(0, structure.index_select(0, centers))  # [n_pairs, 3, 3]
    return (
        positions.index_select(0, neighbors)
        - positions.index_select(0, centers)
        + torch.bmm(shifts.unsqueeze(1), pair_cells).squeeze(1)
    )
