"""The linear potential as a module: features, coefficients, and their covariance.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Dict, List

import torch
from torch import Tensor, nn

from atomtrain.graph import AtomGraph, n_structures, sum_over_structures, type_table
from atomtrain.model import ZBL, PotentialModel
from atomtrain.targets import DatasetInfo, uncertainty_name
from atomtrain_density.closed import ClosedDensity
from atomtrain_density.density import DensityBlocks, by_element
from atomtrain_density.elements import by_species
from atomtrain_density.harmonics import SphericalHarmonics
from atomtrain_density.pairs import group_of, group_pairs, padded
from atomtrain_density.potential import with_slopes
from atomtrain_density.radial import stretched_table
from atomtrain_density.short_range import softened
from atomtrain_linear.closed import ClosedForm, EnergiesAndGradients, Readout
from atomtrain_linear.features import Features
from atomtrain_linear.fit import Solution
from atomtrain_linear.hypers import ModelHypers


class Linear(PotentialModel):
    """An energy that is linear in features of the density, one set of coefficients for each element."""

    closed: EnergiesAndGradients

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.plain = False
        self.cutoff = float(hypers.cutoff)
        if hypers.zbl:
            self.baseline = ZBL(dataset_info)
            self.cutoff = max(self.cutoff, self.baseline.cutoff)
        self.interaction_range = self.cutoff
        self.n_species = len(dataset_info.atomic_types)
        self.species_index: Tensor
        self.register_buffer(
            "species_index", type_table(dataset_info.atomic_types), persistent=False
        )
        degree = hypers.max_degree
        radial = stretched_table(hypers.cutoff, hypers.num_radial)
        blocks = DensityBlocks([hypers.num_radial] * (degree + 1), self.n_species, shared=True)
        self.density = ClosedDensity(SphericalHarmonics(degree), radial, blocks)
        self.features = Features(hypers, self.n_species)
        self.closed = ClosedForm(self.density, self.features.many)  # type: ignore[assignment]
        n_features = self.features.n_features
        self.weight = nn.Parameter(torch.randn(self.n_species, n_features), requires_grad=False)
        self.constant = nn.Parameter(torch.zeros(self.n_species), requires_grad=False)
        self.n_coefficients = self.n_species * (n_features + 1)
        self.linear: Tensor
        self.quadratic: Tensor
        self.third: Tensor
        self.square: Tensor
        for name, value in self.contracted(self.weight)._asdict().items():
            self.register_buffer(name, value)
        known = self.n_coefficients if hypers.uncertainty else 0
        self.factor: Tensor
        self.spread: Tensor
        self.inner: Tensor
        self.register_buffer("factor", torch.eye(known))
        self.register_buffer("spread", torch.ones(1))
        self.register_buffer("inner", torch.zeros(self.n_species, self.n_species))
        self.uncertainty_name: str = uncertainty_name(self.energy_name) if known else ""

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """See :meth:`atomtrain.model.Model.forward`."""
        species = self.species_index.index_select(0, graph.types)
        graph = softened(graph, species, self.inner)
        predictions: Dict[str, List[Tensor]] = {}
        if self.energy_name in outputs:
            predictions[self.energy_name] = [self._energies(graph, species)]
        if self.uncertainty_name != "" and self.uncertainty_name in outputs:
            predictions[self.uncertainty_name] = [self.uncertainty(graph, species)]
        return predictions

    def _energies(self, graph: AtomGraph, species: Tensor) -> Tensor:
        """Energies ``[n_atoms, 1]``."""
        if self.plain:
            y = self._plain_energies(graph, species)
        else:
            wanted = graph.vectors.requires_grad
            readout = Readout(self.linear, self.quadratic, self.third, self.square)
            y, g = self.closed(graph, species, self.features.factors, readout, wanted)
            if wanted:
                y = with_slopes(y, g, graph.vectors, graph.centers)
        return y + self.constant.index_select(0, species).unsqueeze(1)

    def _plain_energies(self, graph: AtomGraph, species: Tensor) -> Tensor:
        """The same but for the constant (see :class:`Readout`), in operations that can be differentiated twice."""
        n_species = self.n_species
        group = group_of(graph.centers, graph.neighbors, species, n_species)
        groups = group_pairs(group, species.shape[0])
        vectors = padded(graph.vectors, groups, self.density.radial.cutoff)
        r = torch.linalg.vector_norm(vectors, dim=1)
        harmonics = self.density.harmonics(vectors / r.unsqueeze(1))
        density = self.density.blocks(harmonics, self.density.radial(r), groups)
        density = density.reshape(-1, self.features.n_harmonics, self.features.n_columns)
        of_two = (density[:, 0] * self.linear.index_select(0, species)).sum(1, keepdim=True)
        layout = by_species(species, n_species)
        return of_two + self.features.contracted(
            density, layout, species, self.quadratic, self.third, self.square
        )

    def rows(self, graph: AtomGraph, species: Tensor) -> Tensor:
        """What energies of structures are linear in, ``[n_structures, n_coefficients]``.

        Features summed over the atoms of each element, then how many these are.
        """
        n, n_species = n_structures(graph), self.n_species
        with torch.no_grad():
            group = group_of(graph.centers, graph.neighbors, species, n_species)
            density = self.density(graph.vectors.detach(), group, species.shape[0])
            layout = by_species(species, n_species)
            nothing = torch.zeros_like(self.weight[:, : self.features.n_columns])
            parts = by_element(density, layout, self.features.n_harmonics, nothing)
            values = self.features(parts, layout.counts)
            values = torch.cat([values, torch.ones_like(values[:, :1])], 1)
            if "atomtrain::selected" in graph.extras:
                chosen = graph.extras["atomtrain::selected"].index_select(0, layout.order)
                values = values * chosen.unsqueeze(1)
            group = graph.structure.index_select(0, layout.order) * n_species + layout.kinds
            sums = sum_over_structures(values, group, n * n_species).view(n, n_species, -1)
            return torch.cat([sums[:, :, :-1].flatten(1), sums[:, :, -1]], 1)

    def uncertainty(self, graph: AtomGraph, species: Tensor) -> Tensor:
        """Standard deviation of each structure's energy, ``[n_structures, 1]``, in the unit of the target."""
        x = self.rows(graph, species).t()
        y = torch.linalg.solve_triangular(self.factor, x, upper=False)
        return torch.linalg.vector_norm(y, dim=0).unsqueeze(1) * self.spread

    @torch.jit.ignore
    def contracted(self, w: Tensor) -> Readout:
        """Coefficients ``[S, n_features]`` of features, with what these are made of."""
        f = self.features
        n_degrees, m, n_pairs = f.degree + 1, f.many.channels, f.two.channels
        norm = torch.rsqrt(2.0 * torch.arange(n_degrees).to(w) + 1.0).reshape(n_degrees, 1, 1, 1)
        of_pairs, of_third, of_square = (
            norm * part.reshape(self.n_species, n_degrees, -1).transpose(0, 1).unsqueeze(2)
            for part in w[:, f.n_columns :].split_with_sizes(
                [n_degrees * n_pairs, n_degrees * m, n_degrees * m], dim=1
            )
        )
        pair = f.pair.to(w)
        half = torch.matmul(
            0.5 * pair[..., :n_pairs] * of_pairs, pair[..., n_pairs:].transpose(2, 3)
        )
        quadratic = half + half.transpose(2, 3)
        return Readout(f.linear * w[:, : f.n_columns], quadratic, f.third * of_third, of_square)

    @torch.jit.ignore
    def structure_outputs(self) -> Dict[str, int]:
        """The uncertainty, if the model knows it."""
        return {self.uncertainty_name: 1} if self.uncertainty_name else {}

    @torch.jit.ignore
    def keep_second_derivatives(self) -> None:
        """See :meth:`atomtrain.model.Model.keep_second_derivatives`."""
        self.plain = True

    @torch.jit.ignore
    def before_export(self) -> None:
        """See :meth:`atomtrain.model.Model.before_export`."""
        self.closed = torch.jit.script(self.closed)  # type: ignore[assignment]

    @torch.jit.ignore
    def set(self, solution: Solution, spread: float) -> None:
        """Take a solution; ``spread`` is the deviation in the target's unit where its factor gives 1."""
        with torch.no_grad():
            weight = solution.coefficients[: -self.n_species].view_as(self.weight)
            self.weight.copy_(weight)
            for name, value in self.contracted(weight)._asdict().items():
                getattr(self, name).copy_(value)
            self.constant.copy_(solution.coefficients[-self.n_species :])
            self.spread.fill_(spread)
            if self.uncertainty_name:
                self.factor.copy_(solution.factor)
