"""What a network is shown of pairs that are closer than any it was trained on.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import torch
from torch import Tensor

from atomtrain.graph import AtomGraph, exchanged
from atomtrain_density.pairs import group_of


def kinds_of_pairs(graph: AtomGraph, species: Tensor, n_species: int) -> Tensor:
    """``[n_pairs]``: element of the center times ``n_species`` plus that of the neighbour."""
    of_centers = species.index_select(0, graph.centers)
    return group_of(of_centers, graph.neighbors, species, n_species)


def note_shortest(found: Tensor, graph: AtomGraph, species: Tensor) -> None:
    """Lower the shortest distances found so far of each two elements, ``[S, S]``."""
    kinds = kinds_of_pairs(graph, species, found.shape[0])
    r = torch.linalg.vector_norm(graph.vectors, dim=1)
    found.view(-1).scatter_reduce_(0, kinds, r, "amin")


def softened(graph: AtomGraph, species: Tensor, inner: Tensor) -> AtomGraph:
    """The graph with no pair much shorter than ``inner [S, S]``, the shortest of a pair of elements.

    Polynomials of high order would blow up there. From ``inner`` inwards a distance r is seen as
    one that falls ever more slowly, to 0.9 ``inner`` at 0.8 ``inner``, and no further; value, slope
    and curvature are continuous. What is closer feels the baseline alone.
    """
    kinds = kinds_of_pairs(graph, species, inner.shape[0])
    r_inner = inner.flatten().index_select(0, kinds)
    r = torch.linalg.vector_norm(graph.vectors, dim=1)
    if not bool((r < r_inner).any()):
        return graph
    t = ((r / r_inner.clamp(min=1e-6)).clamp(max=1.0) * 5.0 - 4.0).clamp(min=0.0)
    seen = r_inner * (1.0 - 0.2 * (0.5 - t**3 + 0.5 * t**4))
    factor = torch.where(r < r_inner, seen / r, torch.ones_like(r))
    return exchanged(graph, graph.vectors * factor.unsqueeze(1), graph.extras)
