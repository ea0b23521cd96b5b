"""Forces and strain derivatives of energies, for any model, by one call of autograd.

A model may build its energies from pair vectors, from positions and cells, or from both (long-range
models do); the three are independent leaves here, so the chain rule below is exact for all of them
and no model has to say which it uses.
"""

from __future__ import annotations

from typing import Tuple

import torch
from torch import Tensor

from atomtrain.graph import AtomGraph, n_structures, sum_over_structures


def with_leaves(graph: AtomGraph) -> AtomGraph:
    """The same batch with positions, cells and vectors as independent leaves that need gradients."""
    return graph._replace(
        positions=graph.positions.detach().requires_grad_(True),
        cells=graph.cells.detach().requires_grad_(True),
        vectors=graph.vectors.detach().requires_grad_(True),
    )


def forces_and_strain(
    energy: Tensor,
    graph: AtomGraph,
    *,
    strain: bool,
    create_graph: bool,
    retain_graph: bool = False,
) -> Tuple[Tensor, Tensor | None]:
    """Forces and strain derivative of the summed ``energy`` (any shape).

    ``graph`` must come from :func:`with_leaves`. Returns forces ``[n_atoms, 3]`` (minus the
    gradient, energy per length) and, if asked for, dE/d(strain) ``[n_structures, 9]``, row-major,
    an energy: volume times ASE's stress. ``create_graph`` keeps both differentiable with respect
    to the weights.
    """
    leaves = [graph.vectors, graph.positions, graph.cells]
    by_vectors, by_positions, by_cells = torch.autograd.grad(
        energy,
        leaves,
        grad_outputs=torch.ones_like(energy),
        create_graph=create_graph,
        retain_graph=retain_graph or create_graph,
        allow_unused=True,
    )
    forces = torch.zeros_like(graph.positions)
    if by_vectors is not None:
        # two sums and a difference: index_add with a factor of -1 takes ten times as long
        pulled = forces.index_add(0, graph.neighbors, by_vectors)
        forces = forces.index_add(0, graph.centers, by_vectors) - pulled
    if by_positions is not None:
        forces = forces - by_positions
    if not strain:
        return forces, None

    n = n_structures(graph)
    derivative = torch.zeros((n, 9), dtype=forces.dtype, device=forces.device)
    if by_vectors is not None:
        derivative = derivative.index_add(
            0, graph.structure.index_select(0, graph.centers), _outer(graph.vectors, by_vectors)
        )
    if by_positions is not None:
        derivative = derivative + sum_over_structures(
            _outer(graph.positions, by_positions), graph.structure, n
        )
    if by_cells is not None:
        derivative = derivative + torch.bmm(graph.cells.transpose(1, 2), by_cells).reshape(n, 9)
    return forces, derivative


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """[n, 3], [n, 3] -> [n, 9], row-major."""
    return (a.unsqueeze(2) * b.unsqueeze(1)).reshape(-1, 9)
