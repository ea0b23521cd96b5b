"""A small expansion of neighbourhoods, and pairs for it, made here."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from atomtrain.graph import AtomGraph
from atomtrain_density.density import DensityBlocks
from atomtrain_density.harmonics import SphericalHarmonics
from atomtrain_density.pairs import group_of
from atomtrain_density.radial import RadialTable
from helpers.structures import graph_of

MAX_ANGULAR, N_SPECIES, CUTOFF = 3, 2, 4.0
N_PER_L = {False: [4, 3, 2, 2], True: [3, 3, 3, 3]}
"""radial functions of each degree; shared by all, or not"""


def expansion(shared: bool) -> tuple[SphericalHarmonics, RadialTable, DensityBlocks]:
    """Harmonics, radial functions and blocks in float64; where they are shared without a cutoff function."""
    blocks = DensityBlocks(N_PER_L[shared], N_SPECIES, shared=shared)
    n_knots = 50
    r = torch.linspace(0, CUTOFF, n_knots + 1, dtype=torch.float64).unsqueeze(1)
    k = torch.arange(1, blocks.n_radial + 1, dtype=torch.float64)
    x, wave, turn = 1 - r / CUTOFF, torch.cos(k * r), torch.sin(k * r)
    slopes = -2 * x / CUTOFF * wave - x**2 * k * turn
    radial = RadialTable(x**2 * wave, slopes, CUTOFF / n_knots, CUTOFF, None if shared else 0.5)
    return SphericalHarmonics(MAX_ANGULAR).to(torch.float64), radial, blocks


def cluster(n_atoms: int) -> tuple[AtomGraph, Tensor, Tensor]:
    """Atoms at random within a box, as a graph; their elements counted from 0; the groups of pairs."""
    rng = np.random.default_rng(n_atoms)
    numbers = rng.integers(1, N_SPECIES + 1, n_atoms)
    side = 2.0 * n_atoms ** (1 / 3)
    graph = graph_of(
        [Atoms(numbers, side * rng.random((n_atoms, 3)))]
    )  # some pairs beyond the cutoff
    species = graph.types - 1
    return graph, species, group_of(graph.centers, graph.neighbors, species, N_SPECIES)


def plain_sum(vectors: Tensor, group: Tensor, n_atoms: int, shared: bool) -> list[Tensor]:
    """The reference: density blocks, summed pair by pair and degree by degree."""
    harmonics, radial, _ = expansion(shared)
    r = torch.linalg.vector_norm(vectors, dim=1)
    y, values = harmonics(vectors / r.unsqueeze(1)), radial(r)
    blocks, first = [], 0
    for degree, n in enumerate(N_PER_L[shared]):
        of_degree = values if shared else values[:, first : first + n]
        each = y[:, degree**2 : (degree + 1) ** 2].unsqueeze(2) * of_degree.unsqueeze(1)
        sums = each.new_zeros(n_atoms * N_SPECIES, *each.shape[1:]).index_add(0, group, each)
        blocks.append(sums.unflatten(0, (n_atoms, N_SPECIES)).transpose(1, 2).flatten(2))
        first += n
    return blocks
