"""SOAP-BPNN as a module: descriptor, network and heads put together.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import Dict, List, Tuple

import sphericart.torch
import torch
from torch import Tensor, nn

from atomtrain.errors import DataError, OptionsError, TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model import ZBL, Constants, Model
from atomtrain.targets import DatasetInfo
from atomtrain_soap_bpnn.descriptor import fast
from atomtrain_soap_bpnn.descriptor.basis import RadialBasis, SphericalHarmonics
from atomtrain_soap_bpnn.descriptor.density import (
    DensityBlocks,
    group_pairs,
    padded,
    power_spectrum,
    product_over_pairs,
)
from atomtrain_soap_bpnn.hypers import ModelHypers
from atomtrain_soap_bpnn.network import (
    HeadBySpecies,
    NetworkBySpecies,
    SharedNetwork,
    by_species,
)

PSEUDO_SPECIES = 4
EPS = 1e-5  # of the layer norm, torch's default


class SoapBpnn(Model):
    """See the hypers for what can be chosen. ``plain`` makes eager calls use plain operations too.

    The fast path gives energies and their first derivatives; set ``plain`` for higher ones.
    """

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo) -> None:
        super().__init__()
        soap = hypers.soap
        self.cutoff = float(soap.cutoff.radius)
        self.interaction_range = self.cutoff
        self.plain = False
        self.hypers = hypers
        self.atomic_types: List[int] = list(dataset_info.atomic_types)
        self.n_species = len(self.atomic_types)
        index = torch.full((max(self.atomic_types) + 1,), -1, dtype=torch.int64)
        index[torch.tensor(self.atomic_types)] = torch.arange(self.n_species)
        self.species_index: Tensor
        self.register_buffer("species_index", index, persistent=False)

        if hypers.zbl:
            self.baseline = ZBL(dataset_info)
            self.cutoff = max(self.cutoff, self.baseline.cutoff)
            self.interaction_range = self.cutoff

        self.radial = RadialBasis(
            soap.cutoff.radius, soap.cutoff.width, soap.max_angular, soap.max_radial
        )
        self.harmonics = SphericalHarmonics(soap.max_angular)
        self.fast_harmonics = _Sphericart(soap.max_angular)
        self.n_per_l: List[int] = self.radial.n_per_l
        self.density_blocks = DensityBlocks(self.n_per_l, self.n_species)
        self.legacy = hypers.legacy
        self.norm = hypers.bpnn.layernorm
        n_channels = self.n_species if self.legacy else PSEUDO_SPECIES
        n_features = sum((n_channels * n) ** 2 for n in self.n_per_l)
        sizes = (
            self.n_species,
            n_features,
            hypers.bpnn.num_hidden_layers,
            hypers.bpnn.num_neurons_per_layer,
            self.norm,
        )
        self.alchemy = nn.Parameter(
            torch.randn((0, 0) if self.legacy else (self.n_species, PSEUDO_SPECIES))
        )
        if self.legacy:
            self.network = NetworkBySpecies(*sizes)
            self.shared_network = SharedNetwork(0, 1, 0, 1, False)  # for TorchScript's eyes only
        else:
            self.network = NetworkBySpecies(0, 1, 0, 1, False)
            self.shared_network = SharedNetwork(*sizes)
        self.n_hidden = self.network.n_out if self.legacy else self.shared_network.n_out
        self.long_range = None
        if hypers.long_range.enable:
            self.long_range = _long_range(hypers, self.n_hidden)
            self.interaction_range = math.inf
        self.heads = nn.ModuleDict()
        self._add_heads(dataset_info)

    # -- what atomtrain calls ------------------------------------------------------------------

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """See :meth:`atomtrain.model.Model.forward`."""
        species = self.species_index.index_select(0, graph.types)
        # two branches: TorchScript drops the others only for a bare is_scripting()
        if torch.jit.is_scripting():  # noqa: SIM114
            features = self.plain_features(graph, species)
        elif self.plain:
            features = self.plain_features(graph, species)
        else:
            features = self._fast_features(graph, species)

        predictions: Dict[str, List[Tensor]] = {}
        if self.legacy:
            layout = by_species(species, self.n_species)
            x = features.index_select(0, layout.rows)
            hidden = self.network(x.reshape(self.n_species, layout.width, x.shape[1]))
            if self.long_range is not None:
                of_atoms = hidden.flatten(0, 1).index_select(0, layout.places)
                far = self.long_range(graph, of_atoms).index_select(0, layout.rows)
                hidden = hidden + far.reshape(hidden.shape)
            for name, head in self.heads.items():
                if name in outputs:
                    y = head(hidden).flatten(0, 1).index_select(0, layout.places)
                    predictions[name] = [y]
        else:
            hidden = self.shared_network(features, species)
            if self.long_range is not None:
                hidden = hidden + self.long_range(graph, hidden)
            for name, head in self.heads.items():
                if name in outputs:
                    predictions[name] = [head(hidden.unsqueeze(0)).squeeze(0)]
        return predictions

    @torch.jit.ignore
    def constants(self, graph: AtomGraph) -> Constants:
        """Density and features of a batch; they do not depend on weights.

        The basis at the pairs is not kept: to gather it takes as long as to compute it.
        """
        blocks = self._pair_basis(graph)[1].density()
        per_atom = {"soap/density": torch.cat([c.flatten(1) for c in blocks], dim=1)}
        if self.legacy:
            spectrum = fast.spectrum_of(blocks, self.norm, EPS)
            per_atom["soap/features"] = spectrum.features
            if spectrum.inverse_deviation is not None:
                per_atom["soap/inverse_deviation"] = spectrum.inverse_deviation
        return Constants(per_atom=per_atom)

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        """New targets get new heads; the elements stay."""
        unknown = sorted(set(dataset_info.atomic_types) - set(self.atomic_types))
        if unknown:
            raise DataError(
                f"this SOAP-BPNN was built for the atomic numbers {self.atomic_types} and cannot "
                f"take {unknown} in; train anew for these elements"
            )
        if self.hypers.zbl:
            self.baseline = ZBL(dataset_info)
        for name in list(self.heads):
            if name not in dataset_info.targets:
                del self.heads[name]
        self._add_heads(dataset_info)

    # -- the two ways to the features ----------------------------------------------------------

    def plain_features(self, graph: AtomGraph, species: Tensor) -> Tensor:
        """Features ``[n_atoms, n_features]`` in plain operations (TorchScript, autograd)."""
        group = graph.centers * self.n_species + species.index_select(0, graph.neighbors)
        vectors = graph.vectors
        if group.shape[0] > 1 and bool((group[1:] < group[:-1]).any()):
            group, order = torch.sort(group, stable=True)
            vectors = vectors.index_select(0, order)
        groups = group_pairs(group, graph.types.shape[0])
        vectors = padded(vectors, groups, self.cutoff)
        r = torch.linalg.vector_norm(vectors, dim=1)
        harmonics = self.harmonics(vectors / r.unsqueeze(1))
        product = product_over_pairs(harmonics, self.radial(r), groups)
        blocks = self.density_blocks.split(self.density_blocks(product, groups))
        if not self.legacy:
            return power_spectrum(self._mix(blocks))
        p = power_spectrum(blocks)
        if self.norm:
            p = torch.nn.functional.layer_norm(p, [p.shape[1]], None, None, 1e-5)
        return p

    @torch.jit.unused
    def _fast_features(self, graph: AtomGraph, species: Tensor) -> Tensor:
        kept = graph.extras
        if "soap/features" in kept and not graph.vectors.requires_grad:
            return kept["soap/features"]  # nobody will ask for forces
        with torch.no_grad():
            order, basis = self._pair_basis(graph)
            if "soap/density" in kept:
                blocks = self.density_blocks.split(kept["soap/density"])
            else:
                blocks = basis.density()
            if self.legacy:
                if "soap/features" in kept:
                    spectrum = fast.Spectrum(
                        kept["soap/features"], kept.get("soap/inverse_deviation"), blocks
                    )
                else:
                    spectrum = fast.spectrum_of(blocks, self.norm, EPS)
        vectors = graph.vectors
        if order is not None:
            vectors = vectors.index_select(0, order)
        if self.legacy:
            return fast.features(vectors, spectrum, basis)
        return power_spectrum(self._mix(fast.densities(vectors, blocks, basis)))

    @torch.jit.unused
    def _pair_basis(self, graph: AtomGraph) -> "Tuple[Tensor | None, fast.PairBasis]":
        """The order that sorts the pairs (None: they are sorted), and the basis at them."""
        vectors = graph.vectors.detach()
        species = self.species_index.index_select(0, graph.types)
        group = graph.centers * self.n_species + species.index_select(0, graph.neighbors)
        order = None
        if len(group) > 1 and bool((group[1:] < group[:-1]).any()):
            group, order = torch.sort(group, stable=True)
            vectors = vectors.index_select(0, order)
        groups = group_pairs(group, len(graph.types))
        places = padded(vectors, groups, self.cutoff)
        r = torch.linalg.vector_norm(places, dim=1)
        harmonics, turning = self.fast_harmonics.compute(places)
        radial, slopes = self.radial.values_and_derivatives(r)
        directions = places / r.unsqueeze(1)
        return order, fast.PairBasis(
            harmonics, turning, radial, slopes, directions, groups, self.density_blocks
        )

    def _mix(self, blocks: List[Tensor]) -> List[Tensor]:
        """Densities of elements -> densities of pseudo-elements, ``[n_atoms, m, 4 n]``."""
        mixed: List[Tensor] = []
        for c in blocks:
            n_atoms, m = c.shape[0], c.shape[1]
            by_element = c.reshape(n_atoms, m, self.n_species, -1)
            together = torch.matmul(self.alchemy.t(), by_element)  # [n_atoms, m, 4, n]
            mixed.append(together.reshape(n_atoms, m, -1))
        return mixed

    def _add_heads(self, dataset_info: DatasetInfo) -> None:
        kinds = self.hypers.heads
        unknown = sorted(set(kinds) - set(dataset_info.targets))
        if unknown:
            raise TargetError(
                f"architecture.model.heads names {', '.join(unknown)}, which is no target (there "
                f"are {', '.join(dataset_info.targets)})"
            )
        example = next(self.parameters())
        for name, target in dataset_info.targets.items():
            if name in self.heads:
                continue
            if target.kind != "scalar":
                raise TargetError(
                    f"target '{name}': SOAP-BPNN predicts scalars, not type '{target.kind}', in "
                    "this version"
                )
            head = HeadBySpecies(
                self.n_species if self.legacy else 1,
                self.n_hidden,
                target.num_subtargets,
                kinds.get(name, "linear") == "mlp",
            )
            self.heads[name] = head.to(example.device, example.dtype)


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


class _Sphericart:
    """sphericart's harmonics with gradients in one call. Not a module: TorchScript must not see it."""

    def __init__(self, max_angular: int) -> None:
        self.max_angular = max_angular
        self.calculator = sphericart.torch.SphericalHarmonics(max_angular)

    def compute(self, vectors: Tensor) -> Tuple[Tensor, Tensor]:
        """``[n, (L + 1)^2]`` and ``[n, 3, (L + 1)^2]``."""
        if len(vectors) == 0:
            size = (self.max_angular + 1) ** 2
            return vectors.new_zeros((0, size)), vectors.new_zeros((0, 3, size))
        values, gradients = self.calculator.compute_with_gradients(vectors)
        return values, gradients

    def __deepcopy__(self, memo: object) -> "_Sphericart":
        return _Sphericart(self.max_angular)

    def __reduce__(self) -> "Tuple[type, Tuple[int]]":
        return _Sphericart, (self.max_angular,)
