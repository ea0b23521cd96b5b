"""The rows of the design matrix: what each feature adds to the forces and stress of a batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from atomtrain.graph import AtomGraph, n_structures
from atomtrain_density.derivatives import Jacobian
from atomtrain_density.harmonics import HarmonicsAndGradients
from atomtrain_density.radial import RadialTable
from atomtrain_linear.features import Features

ROOM = 3 << 20
"""numbers in the derivatives of features that are held at a time"""


class DesignMatrix:
    """Derivatives of the rows that :meth:`Linear.rows` has of energies: those of forces and stress.

    The derivative of a feature in a pair vector is its slope in the density times the density's in the vector, which
    is there for the columns of the neighbour's element alone. So all of it is products of small matrices, for
    atoms of one element and their neighbours of one at a time.
    """

    def __init__(self, features: Features, radial: RadialTable, n_species: int) -> None:
        self.features, self.radial, self.n_species = features, radial, n_species
        self.harmonics = HarmonicsAndGradients(features.degree)

    def of(self, graph: AtomGraph, species: Tensor, kinds: Iterable[str]) -> dict[str, Tensor]:
        """Those of ``kinds``: ``forces [n_atoms, 3, n]`` and ``strain [n_structures, 9, n]``.

        They are what :func:`atomtrain.model.forces_and_strain` gives of energies.
        """
        jacobian = Jacobian(graph, species, self.n_species, self.harmonics, self.radial)
        f, width = self.features, self.n_species * (self.features.n_features + 1)
        shapes = {"forces": (len(species), 3, width), "strain": (n_structures(graph), 9, width)}
        rows = {kind: jacobian.y.new_zeros(shapes[kind]) for kind in kinds}
        chunk = max(1, ROOM // (f.n_harmonics * f.n_columns * f.n_features))
        for s in range(self.n_species if rows else 0):
            own = {k: x[:, :, s * f.n_features : (s + 1) * f.n_features] for k, x in rows.items()}
            for atoms in (species == s).nonzero().squeeze(1).split(chunk):
                slopes = f.slopes(jacobian.density[atoms], s)
                for t in range(self.n_species):
                    pairs, there = jacobian.of_element(atoms, t)
                    x = self._along_pairs(jacobian.at(pairs, there), slopes, t)
                    if "strain" in own:
                        vectors = (graph.vectors[pairs] * there.unsqueeze(2)).transpose(1, 2)
                        virial = torch.bmm(vectors, x.flatten(2)).view(len(atoms), 9, -1)
                        own["strain"].index_add_(0, graph.structure[atoms], virial)
                    if "forces" in own:
                        own["forces"].index_add_(0, atoms, x.sum(1))
                        # a factor of -1 in index_add takes ten times as long
                        pulled = x[there].neg_()
                        own["forces"].index_add_(0, graph.neighbors[pairs[there]], pulled)
        return rows

    def _along_pairs(
        self, moves: Tensor, slopes: list[tuple[int, slice, Tensor]], t: int
    ) -> Tensor:
        """``[n, width, 3, n_features]`` of the density's derivatives ``[n, width, 3, K, n_radial]``."""
        n, width, _, _, n_radial = moves.shape
        x = moves.new_zeros(n, width * 3, self.features.n_features)
        linear = slice(t * n_radial, (t + 1) * n_radial)
        x[:, :, linear] = self.features.linear * moves[:, :, :, 0].flatten(1, 2)
        for first, k, g in slopes:
            own = g[:, :, linear].flatten(1, 2)
            moved = moves[:, :, :, k].reshape(n, 3 * width, own.shape[1])
            x[:, :, first : first + g.shape[3]] = torch.bmm(moved, own)
        return x.view(n, width, 3, self.features.n_features)
