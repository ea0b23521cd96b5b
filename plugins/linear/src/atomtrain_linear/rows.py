"""The rows of the design matrix: what each feature adds to the energies, forces and stress of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from atomtrain.graph import AtomGraph, n_structures, sum_over_structures
from atomtrain_density.derivatives import Jacobian
from atomtrain_density.harmonics import HarmonicsAndGradients
from atomtrain_density.radial import RadialTable
from atomtrain_linear.features import Features

ROOM = 3 << 20
"""numbers in the derivatives of features that are held at a time"""


class DesignMatrix:
    """Rows for the coefficients: features by element of the atom, then a constant for each element.

    The derivative of a feature in a pair vector is its slope in the density times the density's in the vector, which
    is there for the columns of the neighbour's element alone. So all of it is products of small matrices, for
    atoms of one element and their neighbours of one at a time.
    """

    def __init__(self, features: Features, radial: RadialTable, n_species: int) -> None:
        self.features, self.radial, self.n_species = features, radial, n_species
        self.harmonics = HarmonicsAndGradients(features.degree)

    def of(self, graph: AtomGraph, species: Tensor, kinds: list[str]) -> dict[str, Tensor]:
        """Rows of ``values [n_structures, n]``, of ``forces [n_atoms, 3, n]`` and of ``strain [n_structures, 9, n]``.

        Values are sums over atoms; the latter are those of :func:`atomtrain.model.forces_and_strain`. Of these the
        ``kinds`` that are asked for, and values in any case.
        """
        basis = Jacobian(graph, species, self.n_species, self.harmonics, self.radial)
        f, n, n_species = self.features, n_structures(graph), self.n_species
        width = n_species * (f.n_features + 1)
        shapes = {"values": (n,), "forces": (len(species), 3), "strain": (n, 9)}
        rows = {kind: basis.y.new_zeros(*shapes[kind], width) for kind in ("values", *kinds)}
        for s in range(n_species):
            own = slice(s * f.n_features, (s + 1) * f.n_features)
            every = (species == s).nonzero().squeeze(1)
            counted = sum_over_structures(
                (species == s).to(basis.y), graph.structure, len(rows["values"])
            )
            rows["values"][:, n_species * f.n_features + s] = counted
            for atoms in every.split(max(1, ROOM // (f.n_harmonics * f.n_columns * f.n_features))):
                density = basis.density[atoms]
                counts = [len(atoms) if t == s else 0 for t in range(n_species)]
                every_density = (
                    density.transpose(0, 1).flatten(0, 1).split([k * f.n_harmonics for k in counts])
                )
                values = f(list(every_density), counts)
                rows["values"][:, own].index_add_(0, graph.structure[atoms], values)
                if "forces" in rows:
                    self._add_gradients(rows, own, atoms, s, density, basis)
        return rows

    def _add_gradients(
        self,
        rows: dict[str, Tensor],
        own: slice,
        atoms: Tensor,
        s: int,
        density: Tensor,
        basis: Jacobian,
    ) -> None:
        graph, f = basis.graph, self.features
        n = len(atoms)
        slopes = [
            (first, k, g.unflatten(2, (self.n_species, -1))) for first, k, g in f.slopes(density, s)
        ]
        for t in range(self.n_species):
            pairs, there = basis.of_element(atoms, t)
            width = pairs.shape[1]
            if width == 0:
                continue
            moves = basis.at(pairs.flatten()).view(n, width, 3, f.n_harmonics, -1)
            moves *= there[:, :, None, None, None]
            x = moves.new_zeros(n, width * 3, f.n_features)
            first = t * moves.shape[4]
            x[:, :, first : first + moves.shape[4]] = f.linear * moves[:, :, :, 0].flatten(1, 2)
            for first, k, g in slopes:
                by_density = g[:, :, t].flatten(1, 2)
                x[:, :, first : first + g.shape[4]] = torch.bmm(
                    moves[:, :, :, k].reshape(n, 3 * width, -1), by_density
                )
            x = x.view(n, width, 3, f.n_features)
            if "strain" in rows:
                vectors = graph.vectors[pairs] * there.unsqueeze(2)
                virial = torch.bmm(vectors.transpose(1, 2), x.flatten(2)).view(n, 9, -1)
                rows["strain"][:, :, own].index_add_(0, graph.structure[atoms], virial)
            rows["forces"][:, :, own].index_add_(0, atoms, x.sum(1))
            # a factor of -1 in index_add takes ten times as long
            rows["forces"][:, :, own].index_add_(0, graph.neighbors[pairs[there]], x[there].neg_())
