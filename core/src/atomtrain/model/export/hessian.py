"""Second derivatives of an energy in the positions of atoms, by autograd inside an exported model.

No ``from __future__ import annotations`` here: TorchScript compiles this module.
"""

from typing import List, Tuple

import torch
from metatensor.torch import Labels
from torch import Tensor

from atomtrain.graph import AtomGraph


def displaced(graph: AtomGraph) -> Tuple[AtomGraph, Tensor]:
    """The same batch as a function of displacements ``[n_atoms, 3]`` of its atoms, which are zero.

    Cells stay as they are, and an image moves with its atom.
    """
    steps = torch.zeros_like(graph.positions).detach().requires_grad_(True)
    along = steps.index_select(0, graph.neighbors) - steps.index_select(0, graph.centers)
    moved = AtomGraph(  # TorchScript has no _replace
        graph.positions.detach() + steps,
        graph.types,
        graph.cells.detach(),
        graph.pbc,
        graph.structure,
        graph.centers,
        graph.neighbors,
        graph.shifts,
        graph.vectors.detach() + along,
        graph.extras,
    )
    return moved, steps


def second_derivatives(energy: Tensor, steps: Tensor, counts: List[int]) -> Tensor:
    """The Hessian of each structure with itself, ``[sum of n^2, 3, 3]`` for structures of ``counts`` atoms.

    Rows are pairs of atoms, the second one running fastest. ``energy`` is the sum over all structures, as a function
    of the ``steps`` of :func:`displaced`. One pass backwards gives a row of the Hessian, of all structures at once.
    """
    n_atoms = steps.shape[0]
    slope = _derivative(energy, steps, True)
    rows: List[Tensor] = []
    for k in range(max(counts)):
        places: List[int] = []  # atom k of each structure that has one
        first = 0
        for n in counts:
            if k < n:
                places.append(first + k)
            first += n
        ours = slope.index_select(0, torch.tensor(places, device=steps.device)).sum(0)
        for axis in range(3):
            rows.append(_derivative(ours[axis], steps, False))
    every = (
        torch.stack(rows).reshape(-1, 3, n_atoms, 3).transpose(1, 2)
    )  # [largest n, n_atoms, 3, 3]
    parts: List[Tensor] = []
    first = 0
    for n in counts:
        parts.append(every[:n, first : first + n].reshape(n * n, 3, 3))
        first += n
    return torch.cat(parts)


def _derivative(y: Tensor, x: Tensor, again: bool) -> Tensor:
    """That of a number, zero where it does not depend on ``x``; ``again``: it is to be differentiated."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    found = torch.autograd.grad([y], [x], retain_graph=True, create_graph=again, allow_unused=True)[
        0
    ]
    return torch.zeros_like(x) if found is None else found


def pair_labels(counts: List[int], device: torch.device) -> Labels:
    """``system``, ``first_atom``, ``second_atom`` of the rows of :func:`second_derivatives`."""
    parts: List[Tensor] = []
    for k, n in enumerate(counts):
        atoms = torch.arange(n, device=device)
        first, second = atoms.repeat_interleave(n), atoms.repeat(n)
        parts.append(torch.stack([torch.full_like(first, k), first, second], 1))
    values = torch.cat(parts).to(torch.int32)
    return Labels(["system", "first_atom", "second_atom"], values, assume_unique=True)
