"""ACE as a module: density, products and readout put together.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from functools import partial
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from atomtrain.graph import AtomGraph
from atomtrain.model import Constants, ExtraInput, Growth, Model
from atomtrain.targets import DatasetInfo, last_layer_names
from atomtrain_ace.around import around, places_around
from atomtrain_ace.calibration import calibrate, calibrate_new
from atomtrain_ace.closed import (
    ClosedForm,
    ClosedTwoLayers,
    ScalarsAndGradients,
    SecondWeights,
    Structures,
)
from atomtrain_ace.hypers import ModelHypers
from atomtrain_ace.messages import SecondLayer, normalised, of_degree_0
from atomtrain_ace.scalars import Network, Norm, Weights, scalars
from atomtrain_ace.two_layers import Known, TwoLayers, scalars_of_two_layers
from atomtrain_density.closed import ClosedDensity
from atomtrain_density.density import DensityBlocks
from atomtrain_density.derivatives import (
    PairBasis,
    adjoint,
    along_pairs,
    densities,
    pair_adjoint,
    pair_functions,
)
from atomtrain_density.elements import (
    BySpecies,
    activation,
    columns_by_element,
    layout_of,
    own_columns,
)
from atomtrain_density.harmonics import HarmonicsAndGradients, SphericalHarmonics
from atomtrain_density.inputs import InputShift
from atomtrain_density.pairs import PairFunctions, groups_of, padded
from atomtrain_density.potential import DensityModel, any_selected, with_slopes
from atomtrain_density.products import Plain
from atomtrain_density.radial import bessel_table
from atomtrain_density.short_range import softened
from atomtrain_density.targets import HeadInputs, add_heads

NAME = "ACE"
CALM = 4.0
"""Last layers start that much larger, on features that much smaller, than torch would have them: all steps of Adam
are of one size, and hundreds of weights that went along once moved an energy beyond its spread."""


class Ace(DensityModel):
    """Products of an atom's density, normalised, a small network and a linear way around it, and heads.

    See the hypers for what can be chosen.
    """

    closed: ScalarsAndGradients

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info, NAME, hypers.cutoff, hypers.max_degree, hypers.zbl)
        self.hypers = hypers
        self.interaction_range = hypers.num_layers * self.cutoff

        n_radial, n_neurons = hypers.num_radial, hypers.num_neurons
        n_species, n_degrees = self.n_species, hypers.max_degree + 1
        n_columns = n_species * n_radial
        self.products = Network(hypers.max_degree, hypers.num_channels, hypers.correlation)
        self.second = None
        if hypers.num_layers == 2:
            self.second = SecondLayer(self.products, n_radial, n_species, hypers.num_messages)
        self.n_features = hypers.num_layers * self.products.n_features
        self.n_hidden = self.n_features + n_neurons
        self.has_closed_form = True
        self.hears_neighbors = self.second is not None
        self.n_columns = self.n_hidden * self.n_species
        self.build_density(self.degree_for(dataset_info))

        shape = (n_degrees, n_species, n_columns)
        size = 1.0 / math.sqrt(n_columns)
        self.pair = nn.Parameter(size * torch.randn(*shape, 2 * hypers.num_channels))
        self.third = nn.Parameter(size * torch.randn(*shape, self.products.n_third))
        self.first = nn.Parameter(
            torch.randn(self.n_features, n_neurons) / math.sqrt(self.n_features)
        )
        self.offset = nn.Parameter(0.5 * torch.randn(n_species, 1, n_neurons))
        self.inputs = None
        if hypers.extra_inputs:
            self.inputs = InputShift(hypers.extra_inputs, n_species, n_neurons)
        # of the training set (see calibration): checkpoints have them
        self.whitening: Tensor
        self.density_mean: Tensor
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        self.size: Tensor
        self.inner: Tensor
        white = torch.eye(n_radial).repeat(n_degrees, n_species * n_species, 1, 1)
        self.register_buffer("whitening", white)
        self.register_buffer("density_mean", torch.zeros(n_species, n_columns))
        self.register_buffer("feature_mean", torch.zeros(n_species, self.products.n_features))
        self.register_buffer("feature_scale", torch.ones(n_species, self.products.n_features))
        self.register_buffer("size", torch.tensor(1.0 / CALM))
        self.register_buffer("inner", torch.zeros(n_species, n_species))
        self.is_white = False
        self.heads = nn.ModuleDict()
        self.add_heads(dataset_info)

    # -- what atomtrain calls ------------------------------------------------------------------

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """See :meth:`atomtrain.model.Model.forward`."""
        species = self.species_index.index_select(0, graph.types)
        graph = softened(graph, species, self.inner)
        way = self.way(graph, outputs)
        if way == "closed form":
            return self._closed_form(graph, species, outputs)
        if way == "fast scalar":
            return self._fast_scalars(graph, species, outputs[0])
        if way == "fast":
            flat, pairs = self._fast_density(graph, species)
        else:
            flat, pairs = self._plain_density(graph, species)

        return self._from_density(graph, species, flat, pairs, outputs)

    def _from_density(
        self,
        graph: AtomGraph,
        species: Tensor,
        flat: Tensor,
        pairs: PairFunctions,
        outputs: List[str],
    ) -> Dict[str, List[Tensor]]:
        """What :meth:`forward` gives, by autograd."""
        layout = layout_of(graph, species, self.n_species)
        hidden = self.hidden(graph, flat, species, layout, pairs).index_select(0, layout.rows)
        hidden = hidden.reshape(layout.n_species, layout.width, self.n_hidden)
        densities = self.blocks.split(flat)
        predictions: Dict[str, List[Tensor]] = {}
        if "feature" in outputs:
            predictions["feature"] = [columns_by_element(hidden, layout)]
        for name, head in self.heads.items():
            last_layer = self.last_layers[name]
            if name in outputs:
                predictions[name] = head(hidden, densities, species, layout)
            if last_layer in outputs:
                predictions[last_layer] = [columns_by_element(hidden, layout)]
        return predictions

    def _closed_form(
        self, graph: AtomGraph, species: Tensor, outputs: List[str]
    ) -> Dict[str, List[Tensor]]:
        """What :meth:`forward` gives, with first derivatives in the pair vectors from closed forms."""
        vectors = graph.vectors
        wanted = vectors.requires_grad
        share: Optional[Tensor] = None
        owners = graph.centers
        if self.hears_neighbors and "atomtrain::selected" in graph.extras:
            selected = graph.extras["atomtrain::selected"]
            share = selected.unsqueeze(1).to(vectors.dtype)
            owners = any_selected(selected, graph).index_select(0, graph.centers)
        of = Structures(vectors.detach(), graph.centers, graph.neighbors, species, share)
        second: Optional[SecondWeights] = None
        if self.second is not None:
            second = SecondWeights(self.second.sending(), self.second.norm())
        predictions: Dict[str, List[Tensor]] = {}
        for name, head in self.heads.items():
            last = self.last_layers[name] in outputs
            if name in outputs or last:
                offset = self._offset(graph, species)
                weights = self.weights(head.last_weight(), offset)  # type: ignore[operator]
                y, g, x = self.closed(of, weights, self.norm(), second, wanted, last)
                if name in outputs:
                    predictions[name] = [with_slopes(y, g, vectors, owners) if wanted else y]
                if last:
                    columns = own_columns(self.size * x, species, self.n_species)
                    predictions[self.last_layers[name]] = [columns]
        return predictions

    @torch.jit.ignore
    def extra_inputs(self) -> Dict[str, ExtraInput]:
        """See :meth:`atomtrain.model.Model.extra_inputs`."""
        return {} if self.inputs is None else self.inputs.declared()

    @torch.jit.ignore
    def constants(self, graph: AtomGraph) -> Constants:
        """The density and, where there are gradients, the places of pairs in the radial table."""
        species = self.species_index.index_select(0, graph.types)
        graph = softened(graph, species, self.inner)
        blocks = self._pair_basis(graph, species).density()
        kept = Constants()
        kept.per_atom["ace/density"] = torch.cat([c.flatten(1) for c in blocks], dim=1)
        if self.has_gradients:
            r = torch.linalg.vector_norm(graph.vectors, dim=1)
            kept.per_pair["ace/places"] = self.radial.places(r)
        return kept

    @torch.jit.ignore
    def layout(self, graph: AtomGraph) -> Dict[str, Tensor]:
        """See :meth:`atomtrain.model.Model.layout`; with a second layer the neighbours of each atom, too."""
        kept = super().layout(graph)
        if self.second is not None:
            centers = kept["atoms/ranks"].index_select(0, graph.centers)
            places, width = places_around(centers, len(graph.types))
            kept |= {"pairs/around": places, "host/around": torch.tensor(width)}
        return kept

    @torch.jit.ignore
    def calibrate(self, batches) -> None:  # type: ignore[no-untyped-def]
        """See :func:`atomtrain_ace.calibration.calibrate`."""
        calibrate(self, batches)

    @torch.jit.ignore
    def before_export(self) -> None:
        """See :meth:`atomtrain.model.Model.before_export`."""
        with torch.no_grad():
            pair, third = self._whitened(self.pair), self._whitened(self.third)
        self.pair = nn.Parameter(pair, requires_grad=False)
        self.third = nn.Parameter(third, requires_grad=False)
        self.is_white = True
        if self.second is not None:
            self.second.whiten()
        self.closed = torch.jit.script(self.closed)  # type: ignore[assignment]

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """See :meth:`atomtrain.model.Model.grow`; statistics of new elements are those of the new data."""
        assert isinstance(trained, Ace)
        growth.take_over(self, trained)
        calibrate_new(self, trained, growth)

    # -- parts ---------------------------------------------------------------------------------

    def weights(self, last: Tensor, offset: Tensor) -> Weights:
        """All weights of one scalar whose head has the weights ``last [S, 1, n_hidden]``."""
        linear, neurons = last.squeeze(1).split_with_sizes(
            [self.n_features, self.n_hidden - self.n_features], dim=1
        )
        pair, third = self._whitened(self.pair), self._whitened(self.third)
        return Weights(pair, third, self.first, offset, self.size * linear, self.size * neurons)

    def norm(self) -> Norm:
        """The statistics that features are normalised with."""
        return Norm(self.density_mean, self.feature_mean, self.feature_scale)

    def hidden(
        self,
        graph: AtomGraph,
        flat: Tensor,
        species: Tensor,
        layout: BySpecies,
        pairs: PairFunctions,
    ) -> Tensor:
        """Normalised products and neurons, ``[n_atoms, n_hidden]``, of the density ``[n_atoms, ...]``."""
        first = self.first_layer(flat, species, layout)
        x = normalised(first.features, species, self.feature_mean, self.feature_scale)
        if self.second is not None:
            x = torch.cat([x, self.second(x, first, species, layout, pairs)], 1)
        z = torch.addmm(self._offset(graph, species), x, self.first)
        return self.size * torch.cat([x, activation(z)], 1)

    def _offset(self, graph: AtomGraph, species: Tensor) -> Tensor:
        """What the neurons of each atom begin with, ``[n_atoms, n_neurons]``: by its element, and by extra inputs."""
        offset = self.offset.squeeze(1).index_select(0, species)
        if self.inputs is not None:
            offset = offset + self.inputs(graph, species)
        return offset

    def first_layer(self, flat: Tensor, species: Tensor, layout: BySpecies) -> Plain:
        """Channels, products and features as they come."""
        n_harmonics, n_columns = self.products.n_harmonics, self.density_mean.shape[1]
        d = flat[:, : n_harmonics * n_columns].reshape(-1, n_harmonics, n_columns)
        d = d - of_degree_0(self.density_mean, species, n_harmonics)
        pair, third = self._whitened(self.pair), self._whitened(self.third)
        return self.products.plain(d, layout, pair, third)

    def _whitened(self, weight: Tensor) -> Tensor:
        """Weights for the density as it is, of weights ``[L + 1, S, Q, m]`` for the whitened one."""
        if self.is_white:
            return weight
        n_degrees, n_species, n_columns, m = weight.shape
        blocks = weight.reshape(n_degrees, n_species * n_species, n_columns // n_species, m)
        return torch.matmul(self.whitening, blocks).reshape(weight.shape)

    def _plain_density(self, graph: AtomGraph, species: Tensor) -> Tuple[Tensor, PairFunctions]:
        """``[n_atoms, sum of block sizes]``, and what a second layer needs, in plain operations."""
        groups = groups_of(graph, species, self.n_species)
        vectors = padded(graph.vectors, groups, self.radial.cutoff)
        r = torch.linalg.vector_norm(vectors, dim=1)
        y, radial = self.harmonics(vectors / r.unsqueeze(1)), self.radial(r)
        flat: Tensor = self.blocks(y, radial, groups)
        n_harmonics = self.products.n_harmonics if self.second is not None else 0
        y = y[:, :n_harmonics].index_select(0, groups.slots)
        radial = radial.index_select(0, groups.slots)
        return flat, PairFunctions(graph.centers, graph.neighbors, y, radial)

    @torch.jit.unused
    def _fast_density(self, graph: AtomGraph, species: Tensor) -> Tuple[Tensor, PairFunctions]:
        """The same with what is kept, and first derivatives that are known."""
        kept = graph.extras.get("ace/density")
        moving = graph.vectors.requires_grad
        nothing = graph.vectors[:0].detach()
        no_pairs = PairFunctions(graph.centers, graph.neighbors, nothing, nothing)
        if kept is not None and not moving and self.second is None:
            return kept, no_pairs
        basis = self._pair_basis(graph, species)
        blocks = basis.density() if kept is None else self.blocks.split(kept)
        if moving:
            blocks = densities(graph.vectors, blocks, basis)
        flat = torch.cat([c.flatten(1) for c in blocks], dim=1)
        if self.second is None:
            return flat, no_pairs
        ends = (graph.vectors, graph.centers, graph.neighbors)
        return flat, pair_functions(*ends, basis, self.products.n_harmonics)

    @torch.jit.unused
    def _fast_scalars(
        self, graph: AtomGraph, species: Tensor, name: str
    ) -> Dict[str, List[Tensor]]:
        """What :meth:`forward` gives where one scalar is all that is wanted."""
        layout = layout_of(graph, species, self.n_species)
        wanted = graph.vectors.requires_grad
        kept = graph.extras.get("ace/density")
        needed = wanted or kept is None or self.second is not None
        basis = self._pair_basis(graph, species) if needed else None
        if kept is None:
            assert basis is not None
            kept = torch.cat([c.flatten(1) for c in basis.density()], dim=1)
        if self.second is not None:
            assert basis is not None
            return {name: [self._fast_two_layers(graph, species, name, kept, basis, layout)]}
        offset = self._offset(graph, species)
        weights = self.weights(self.heads[name].last_weight(), offset)  # type: ignore[operator]
        y, g = scalars(self.products, kept, layout, weights, self.norm(), wanted)
        if wanted:
            assert basis is not None and g is not None
            slopes = partial(adjoint, g, basis)
            y = y + along_pairs(graph.vectors, graph.centers, len(y), slopes)
        return {name: [y]}

    @torch.jit.unused
    def _fast_two_layers(
        self,
        graph: AtomGraph,
        species: Tensor,
        name: str,
        kept: Tensor,
        basis: PairBasis,
        layout: BySpecies,
    ) -> Tensor:
        """The scalars of two layers."""
        second, wanted = self.second, graph.vectors.requires_grad
        assert second is not None
        ends = (graph.vectors.detach(), graph.centers, graph.neighbors)
        pairs = pair_functions(*ends, basis, self.products.n_harmonics)
        n_atoms = len(layout.order)
        if "host/around" in graph.extras:
            places, width = graph.extras["pairs/around"], int(graph.extras["host/around"])
        else:
            places, width = places_around(layout.ranks.index_select(0, pairs.centers), n_atoms)
        neighbors = layout.ranks.index_select(0, pairs.neighbors)
        near = around(places, width, n_atoms, neighbors, pairs.harmonics, pairs.radial)
        sending = second.sending()
        known = Known(layout, near, self.norm(), second.norm())
        layers = self.closed.layers  # type: ignore[attr-defined]
        assert isinstance(layers, TwoLayers)
        offset = self._offset(graph, species)
        weights = self.weights(self.heads[name].last_weight(), offset)  # type: ignore[operator]
        y, found = scalars_of_two_layers(layers, kept, known, weights, sending, wanted)
        if found is None:
            return y
        g, on_y, on_r = found

        def slopes() -> Tensor:
            return adjoint(g, basis) + pair_adjoint(on_y, on_r, basis)

        def weighted(weights: Tensor) -> Tensor:
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                moved = graph._replace(vectors=graph.vectors.detach().requires_grad_(True))
                known = self._fast_density(moved, species)
                scalars = self._from_density(moved, species, *known, [name])[name][0]
                return torch.autograd.grad(scalars, moved.vectors, weights, create_graph=again)[0]

        return y + along_pairs(graph.vectors, graph.centers, n_atoms, slopes, weighted)

    @torch.jit.unused
    def _pair_basis(self, graph: AtomGraph, species: Tensor) -> PairBasis:
        """The basis at the pairs."""
        places = graph.extras.get("ace/places")
        return PairBasis.of(graph, species, self.fast_harmonics, self.radial, self.blocks, places)

    @torch.jit.ignore
    def build_density(self, degree: int) -> None:
        """The parts that compute the density up to a degree; none has weights."""
        self.degree = degree
        self.radial = bessel_table(self.hypers.cutoff, self.hypers.num_radial)
        self.harmonics = SphericalHarmonics(degree)
        self.fast_harmonics = HarmonicsAndGradients(degree)
        n_per_l = [self.hypers.num_radial] * (degree + 1)
        self.blocks = DensityBlocks(n_per_l, self.n_species, shared=True)
        density = ClosedDensity(self.harmonics, self.radial, self.blocks)
        if self.second is None:
            self.closed = ClosedForm(density, self.products)  # type: ignore[assignment]
        else:
            layers = TwoLayers(self.products, self.second)
            self.closed = ClosedTwoLayers(density, layers)  # type: ignore[assignment]

    @torch.jit.ignore
    def add_heads(self, dataset_info: DatasetInfo) -> None:
        """Heads for targets that have none, calmed."""
        n_per_l = [self.hypers.num_radial] * (self.degree + 1)
        inputs = HeadInputs(self.n_species, self.n_hidden, self.n_species, n_per_l, True, True)
        there = set(self.heads)
        add_heads(self.heads, dataset_info, inputs, {}, NAME)
        self.last_layers = last_layer_names(self.heads)
        with torch.no_grad():
            for name, head in self.heads.items():
                for parameter in head.parameters() if name not in there else ():
                    parameter.mul_(CALM)
