"""SOAP-BPNN as a module: descriptor, network and heads put together.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from atomtrain.errors import DataError, OptionsError
from atomtrain.graph import AtomGraph
from atomtrain.model import Constants, ExtraInput, Growth, Model
from atomtrain.targets import DatasetInfo, last_layer_names
from atomtrain_density import derivatives
from atomtrain_density.density import DensityBlocks
from atomtrain_density.derivatives import PairBasis
from atomtrain_density.elements import all_together, columns_by_element, layout_of, own_columns
from atomtrain_density.harmonics import HarmonicsAndGradients, SphericalHarmonics
from atomtrain_density.inputs import InputShift
from atomtrain_density.pairs import groups_of, padded
from atomtrain_density.potential import DensityModel, with_slopes
from atomtrain_density.targets import HeadInputs, add_heads
from atomtrain_density.tensors import PSEUDO_SPECIES
from atomtrain_soap_bpnn.descriptor import fast
from atomtrain_soap_bpnn.descriptor.closed import ClosedForm, ScalarsAndGradients
from atomtrain_soap_bpnn.descriptor.radial import RadialBasis
from atomtrain_soap_bpnn.descriptor.spectrum import (
    SymmetricSpectrum,
    places_of_products,
    power_spectrum,
)
from atomtrain_soap_bpnn.hypers import ModelHypers
from atomtrain_soap_bpnn.network import NetworkBySpecies, SharedNetwork
from atomtrain_soap_bpnn.scalars import Inputs, Network, scalars

NAME = "SOAP-BPNN"
EPS = 1e-5  # of the layer norm, torch's default


class SoapBpnn(DensityModel):
    """Features of each atom's SOAP power spectrum, a network on them, and a head for each target.

    See the hypers for what can be chosen.
    """

    closed: ScalarsAndGradients

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        soap = hypers.soap
        super().__init__(dataset_info, NAME, soap.cutoff.radius, soap.max_angular, hypers.zbl)
        self.interaction_range = self.cutoff
        self.hypers = hypers
        self._build_expansion(self.degree_for(dataset_info))
        self.legacy = hypers.legacy
        self.norm = hypers.bpnn.layernorm
        n_hidden, n_neurons = hypers.bpnn.num_hidden_layers, hypers.bpnn.num_neurons_per_layer
        n_channels = self.n_species if self.legacy else PSEUDO_SPECIES
        columns = [n_channels * n for n in self.n_per_l[: self.n_degrees]]
        # Equal products are left out where a layer of each element's own can make up for it.
        self.symmetric = self.legacy and n_hidden > 0
        spectrum = SymmetricSpectrum(columns, self.norm, EPS)
        unused = SymmetricSpectrum([1], False, EPS)  # for TorchScript's eyes only
        self.spectrum = spectrum if self.symmetric else unused
        self.n_features = spectrum.n_features if self.symmetric else spectrum.n_all
        self._build_closed_form()
        self.alchemy = nn.Parameter(
            torch.randn((0, 0) if self.legacy else (self.n_species, PSEUDO_SPECIES))
        )
        if self.legacy:
            self.network = NetworkBySpecies(self.n_species, spectrum, n_hidden, n_neurons)
            self.shared_network = SharedNetwork(0, 1, 0, 1, False)
        else:
            self.network = NetworkBySpecies(0, unused, 0, 1)
            self.shared_network = SharedNetwork(
                self.n_species, spectrum.n_all, n_hidden, n_neurons, self.norm
            )
        self.n_hidden = self.network.n_out if self.legacy else self.shared_network.n_out
        self.long_range = None
        if hypers.long_range.enable:
            self.long_range = _long_range(hypers, self.n_hidden)
            self.interaction_range = math.inf
        self.inputs = None
        if hypers.extra_inputs:
            self.inputs = InputShift(hypers.extra_inputs, self.n_species, n_neurons)
        self.n_columns = self.n_hidden * (self.n_species if self.legacy else 1)
        self.has_closed_form = self.symmetric and self.long_range is None
        self.heads = nn.ModuleDict()
        self.add_heads(dataset_info)

    # -- what atomtrain calls ------------------------------------------------------------------

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """See :meth:`atomtrain.model.Model.forward`."""
        species = self.species_index.index_select(0, graph.types)
        way = self.way(graph, outputs)
        if way == "closed form":
            return self._closed_form(graph, species, outputs)
        if way == "fast scalar":
            return self._fast_scalars(graph, species, outputs[0])
        if way == "fast":
            features, densities = self.fast_features(graph, species)
        else:
            features, densities = self.plain_features(graph, species)

        if self.legacy:
            layout = layout_of(graph, species, self.n_species)
            hidden = self.network(features, layout, self._shift(graph, species))
        else:
            layout = all_together(species)
            shift = self._shift(graph, species)
            hidden = self.shared_network(features, species, shift).unsqueeze(0)

        if self.long_range is not None:
            of_atoms = hidden.flatten(0, 1).index_select(0, layout.places)
            far = self.long_range(graph, of_atoms).index_select(0, layout.rows)
            hidden = hidden + far.reshape(hidden.shape)

        predictions: Dict[str, List[Tensor]] = {}
        if "feature" in outputs:
            predictions["feature"] = [columns_by_element(hidden, layout)]
        for name, head in self.heads.items():
            last_layer = self.last_layers[name]
            if name in outputs or last_layer in outputs:
                last = head.features(hidden)  # type: ignore[operator]
                if name in outputs:
                    predictions[name] = head(last, densities, species, layout)
                if last_layer in outputs:
                    predictions[last_layer] = [columns_by_element(last, layout)]
        return predictions

    def _closed_form(
        self, graph: AtomGraph, species: Tensor, outputs: List[str]
    ) -> Dict[str, List[Tensor]]:
        """What :meth:`forward` gives, with first derivatives in the pair vectors from closed forms."""
        vectors = graph.vectors
        wanted = vectors.requires_grad
        predictions: Dict[str, List[Tensor]] = {}
        for name, head in self.heads.items():
            last = self.last_layers[name] in outputs
            if name in outputs or last:
                shift = self._shift(graph, species)
                network = self._network(head.hidden_weights(), head.last_weight(), shift)  # type: ignore[operator]
                y, g, x = self.closed(
                    vectors.detach(), graph.centers, graph.neighbors, species, network, wanted, last
                )
                if name in outputs:
                    predictions[name] = [with_slopes(y, g, vectors, graph.centers) if wanted else y]
                if last:
                    predictions[self.last_layers[name]] = [own_columns(x, species, self.n_species)]
        return predictions

    def _network(
        self, hidden: List[Tensor], last: Tensor, shift: Optional[Tensor] = None
    ) -> Network:
        """All layers of one scalar; ``hidden`` and ``last`` are those of its head."""
        first, offset = self.network.folded()
        shifts: List[Tensor] = []
        if shift is not None:
            shifts.append(shift)
        return Network(first, offset, self.network.hidden() + hidden, last, shifts)

    def _shift(self, graph: AtomGraph, species: Tensor) -> Optional[Tensor]:
        """What the extra inputs add in the first layer, ``[n_atoms, n_neurons]``, if there are any."""
        shift: Optional[Tensor] = None
        if self.inputs is not None:
            shift = self.inputs(graph, species)
        return shift

    @torch.jit.ignore
    def extra_inputs(self) -> Dict[str, ExtraInput]:
        """See :meth:`atomtrain.model.Model.extra_inputs`."""
        return {} if self.inputs is None else self.inputs.declared()

    @torch.jit.ignore
    def constants(self, graph: AtomGraph) -> Constants:
        """Features, density and, where there are gradients, the places of pairs in the radial table.

        None depends on weights. What else follows from them (the basis at the pairs, which is many
        numbers) is not kept: to gather it takes as long as to compute it.
        """
        species = self.species_index.index_select(0, graph.types)
        blocks = self._pair_basis(graph, species).density()
        kept = Constants()
        if self.symmetric:
            spectrum = fast.Spectrum.of(blocks[: self.n_degrees], self.spectrum)
            kept.per_atom["soap/features"] = spectrum.features
            kept.per_atom["soap/inverse_deviation"] = spectrum.inverse_deviation
        kept.per_atom["soap/density"] = torch.cat([c.flatten(1) for c in blocks], dim=1)
        if self.has_gradients:
            r = torch.linalg.vector_norm(graph.vectors, dim=1)
            kept.per_pair["soap/places"] = self.radial.places(r)
        return kept

    @torch.jit.ignore
    def before_export(self) -> None:
        """See :meth:`atomtrain.model.Model.before_export`."""
        self.network.fold()
        self.closed = torch.jit.script(self.closed)  # type: ignore[assignment]

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """See :meth:`atomtrain.model.Model.grow`; the layer norm and what mixes all products are in the way."""
        assert isinstance(trained, SoapBpnn)
        later = (
            "train anew, with all elements you may want later in architecture.atomic_types, or with a model that "
            "can grow: architecture.model.legacy: false"
        )
        if self.legacy and self.norm:
            raise DataError(
                f"this {NAME} cannot take in new elements: its layer norm (bpnn.layernorm) takes mean and size of "
                "the features of all elements together, so that more elements change what it has learnt of the "
                f"others; {later}, or bpnn.layernorm: false"
            )
        mixes = self.long_range is not None or any(head.mlp for head in self.heads.values())
        if self.legacy and not self.network.has_layers and mixes:
            raise DataError(
                f"this {NAME} cannot take in new elements: without hidden layers (bpnn.num_hidden_layers: 0) "
                f"long_range and mlp heads work on the features of all elements together; {later}"
            )
        axes: Dict[Tuple[int, int], Tensor] = {}
        if self.legacy:
            of_features = self.n_per_l[: self.n_degrees]
            places = places_of_products(of_features, growth.places, self.n_species, self.symmetric)
            axes[len(places), self.n_features] = places
        growth.take_over(self, trained, axes)

    # -- the two ways to the features ----------------------------------------------------------

    def plain_features(self, graph: AtomGraph, species: Tensor) -> Tuple[Tensor, List[Tensor]]:
        """Features ``[n_atoms, n_features]`` and density in plain operations."""
        groups = groups_of(graph, species, self.n_species)
        vectors = padded(graph.vectors, groups, self.cutoff)
        r = torch.linalg.vector_norm(vectors, dim=1)
        harmonics = self.harmonics(vectors / r.unsqueeze(1))
        blocks = self.density_blocks.split(self.density_blocks(harmonics, self.radial(r), groups))
        return self._features(blocks), blocks

    def _features(self, blocks: List[Tensor]) -> Tensor:
        """Features ``[n_atoms, n_features]`` of a density in plain operations."""
        if self.symmetric:
            return self.spectrum(blocks[: self.n_degrees])[0]
        if not self.legacy:
            return power_spectrum(self._mix(blocks))
        p = power_spectrum(blocks[: self.n_degrees])
        if self.norm:
            p = torch.nn.functional.layer_norm(p, [p.shape[1]])
        return p

    @torch.jit.unused
    def fast_features(self, graph: AtomGraph, species: Tensor) -> Tuple[Tensor, List[Tensor]]:
        kept = graph.extras
        moving = graph.vectors.requires_grad
        if "soap/density" in kept and not moving:  # nobody will ask for forces
            blocks = self.density_blocks.split(kept["soap/density"])
            if "soap/features" in kept:
                return kept["soap/features"], blocks
            return self._features(blocks), blocks
        basis, blocks, spectrum = self._descriptor(graph, species)
        if spectrum is not None:
            features = fast.features(graph.vectors, spectrum, basis)
            if self.has_tensors and moving:
                blocks = derivatives.densities(graph.vectors, blocks, basis)
            return features, blocks
        blocks = derivatives.densities(graph.vectors, blocks, basis)
        return self._features(blocks), blocks

    @torch.jit.unused
    def _fast_scalars(
        self, graph: AtomGraph, species: Tensor, name: str
    ) -> Dict[str, List[Tensor]]:
        """What :meth:`forward` gives where one scalar is all that is wanted."""
        head = self.heads[name]
        layout = layout_of(graph, species, self.n_species)
        shift = self._shift(graph, species)
        network = self._network(head.hidden_weights(), head.last_weight(), shift)  # type: ignore[operator]
        if not graph.vectors.requires_grad:
            features = self.fast_features(graph, species)[0]
            inputs = Inputs(features, torch.ones_like(features[:, :1]), 0)  # no slopes are wanted
            return {name: [scalars(inputs, layout, network, False)[0]]}
        basis, _, spectrum = self._descriptor(graph, species)
        assert spectrum is not None
        n_products = self.spectrum.n_normalised
        inputs = Inputs(spectrum.features, spectrum.inverse_deviation, n_products)
        y, g = scalars(inputs, layout, network, True)
        assert g is not None
        return {name: [y + fast.slopes(graph.vectors, graph.centers, g, spectrum, basis)]}

    @torch.jit.unused
    @torch.no_grad()
    def _descriptor(
        self, graph: AtomGraph, species: Tensor
    ) -> "Tuple[PairBasis, List[Tensor], fast.Spectrum | None]":
        """Basis at the pairs, density, and spectrum if it is symmetric."""
        kept = graph.extras
        basis = self._pair_basis(graph, species)
        if "soap/density" in kept:
            blocks = self.density_blocks.split(kept["soap/density"])
        else:
            blocks = basis.density()
        if not self.symmetric:
            return basis, blocks, None
        of_features = blocks[: self.n_degrees]
        if "soap/features" in kept and "soap/inverse_deviation" in kept:
            inverse = kept["soap/inverse_deviation"]
            spectrum = fast.Spectrum(kept["soap/features"], inverse, of_features, self.spectrum)
        else:
            spectrum = fast.Spectrum.of(of_features, self.spectrum)
        return basis, blocks, spectrum

    @torch.jit.unused
    def _pair_basis(self, graph: AtomGraph, species: Tensor) -> PairBasis:
        """The basis at the pairs."""
        parts = (self.fast_harmonics, self.radial, self.density_blocks)
        return PairBasis.of(graph, species, *parts, graph.extras.get("soap/places"))

    def _mix(self, blocks: List[Tensor]) -> List[Tensor]:
        """The density of the features' degrees, elements mixed into pseudo-elements."""
        parts: List[Tensor] = []
        for c in blocks[: self.n_degrees]:
            parts.append(c.flatten(1))
        by_element = self.by_element.separate(torch.cat(parts, dim=1))
        return self.by_pseudo_element.join(torch.matmul(self.alchemy.t(), by_element))

    @torch.jit.ignore
    def build_density(self, degree: int) -> None:
        """The parts that compute the density up to a degree, and what is compiled of them."""
        self._build_expansion(degree)
        self._build_closed_form()

    def _build_expansion(self, max_angular: int) -> None:
        """The parts that compute the density up to a degree; none has weights."""
        soap = self.hypers.soap
        self.degree = max_angular
        self.n_degrees: int = soap.max_angular + 1  # of the features
        self.radial = RadialBasis(
            soap.cutoff.radius, soap.cutoff.width, max_angular, soap.max_radial
        )
        self.harmonics = SphericalHarmonics(max_angular)
        self.fast_harmonics = HarmonicsAndGradients(max_angular)
        self.n_per_l: List[int] = self.radial.n_per_l
        self.density_blocks = DensityBlocks(self.n_per_l, self.n_species)
        of_features = self.n_per_l[: self.n_degrees]
        self.by_element = DensityBlocks(of_features, self.n_species)
        self.by_pseudo_element = DensityBlocks(of_features, PSEUDO_SPECIES)

    def _build_closed_form(self) -> None:
        parts = (self.harmonics, self.radial, self.density_blocks, self.spectrum)
        self.closed = ClosedForm(*parts)  # type: ignore[assignment]

    @torch.jit.ignore
    def add_heads(self, dataset_info: DatasetInfo) -> None:
        """Heads for the targets that have none."""
        inputs = HeadInputs(
            n_groups=self.n_species if self.legacy else 1,
            n_in=self.n_hidden,
            n_species=self.n_species,
            n_per_l=self.n_per_l,
            apart=self.legacy,
            with_density=self.hypers.add_lambda_basis,
        )
        add_heads(self.heads, dataset_info, inputs, self.hypers.heads, NAME)
        self.last_layers = last_layer_names(self.heads)
        self.has_tensors = any(head.needs_density for head in self.heads.values())


def _long_range(hypers: ModelHypers, n_features: int) -> nn.Module:
    """The long-range module, which needs torch-pme. Raises OptionsError where it is missing."""
    try:
        from atomtrain_soap_bpnn.long_range import LongRange
    except ModuleNotFoundError as error:
        if error.name != "torchpme":
            raise
        raise OptionsError(
            "architecture.model.long_range needs the package torch-pme, which is not installed; "
            "install it with: pip install 'atomtrain-soap-bpnn[long-range]'"
        ) from error
    return LongRange(hypers.long_range, n_features, hypers.soap.cutoff.radius)
