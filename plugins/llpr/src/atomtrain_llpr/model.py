"""LLPR as a module: a trained model, and what the features before its last layers say of its errors.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from atomtrain.errors import TargetError, did_you_mean
from atomtrain.graph import AtomGraph, exchanged, type_table
from atomtrain.model import Backbone, Model
from atomtrain.model.affine import Affine
from atomtrain.model.base import InFloat64
from atomtrain.model.heads import pool
from atomtrain.targets import DatasetInfo, ensemble_name, uncertainty_name
from atomtrain.training.affine import affine_of_checkpoint
from atomtrain_llpr.hypers import ModelHypers
from atomtrain_llpr.posterior import (
    NEGLIGIBLE,
    SMALL,
    WELL_KNOWN,
    Spectrum,
    quick_spread,
    spread,
    taken_off,
)


class Known(InFloat64):
    """What is known of a last layer's weights, direction by direction: see :mod:`atomtrain_llpr.posterior`.

    ``basis [width, k]`` and ``taken [k]``, and in exported models ``rest`` and ``taken_rest`` in single precision.
    """

    def __init__(self, basis: Tensor, taken: Tensor, floor: Tensor) -> None:
        super().__init__()
        self.basis: Tensor
        self.taken: Tensor
        self.floor: Tensor
        self.rest: Tensor
        self.taken_rest: Tensor
        self.register_buffer("basis", basis)
        self.register_buffer("taken", taken)
        self.register_buffer("floor", floor)
        self.register_buffer("rest", torch.zeros(len(basis), 0), persistent=False)
        self.register_buffer("taken_rest", torch.zeros(0), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """The spread ``[n]`` of what has these ``features [n, width]``, in float64."""
        x = features.to(self.basis.dtype)
        if self.rest.shape[1] == 0:
            return spread(x, self.basis, self.taken, self.floor)
        return quick_spread(x, self.basis, self.taken, self.floor, self.rest, self.taken_rest)

    @torch.jit.ignore
    def shorten(self, dtype: torch.dtype) -> None:
        """Leave out directions of which nothing is known, and keep most others in the network's ``dtype``.

        To read them is what takes time where features are many.
        """
        kept = self.taken > 0
        if dtype == torch.float32 and int(kept.sum()) * len(self.basis) > SMALL:
            rest = kept & (self.taken < WELL_KNOWN / (1.0 + WELL_KNOWN) * self.floor)
            self.rest = self.basis[:, rest].to(dtype).contiguous()
            self.taken_rest = self.taken[rest].to(dtype)
            kept = kept & ~rest
        self.basis, self.taken = self.basis[:, kept].contiguous(), self.taken[kept]


class Posterior(InFloat64):
    """Standard deviations and ensemble of one target; ``affine`` is the target's, by the trained model's elements.

    ``scale [n_types, n_properties]`` is the standard deviation, in the target's unit, where the spread is 1;
    ``members [width, n]`` are ensemble members' weights less the model's, in the same measure. Features fall in
    ``groups`` (:meth:`atomtrain.model.Model.last_layer_groups`). Untrained it knows nothing.
    """

    def __init__(self, width: int, groups: int, n_members: int, affine: Affine) -> None:
        super().__init__()
        self.groups = groups
        self.affine = affine
        nothing = torch.zeros(width, dtype=torch.float64)
        self.known = Known(torch.diag(1.0 + nothing), nothing, 1.0 + nothing[:1])
        self.by_group = nn.ModuleList()  # in exported models, where it saves time
        self.scale: Tensor
        self.members: Tensor
        self.register_buffer("scale", affine.scale.clone())
        self.register_buffer("members", torch.zeros(width, n_members, dtype=torch.float64))

    def of_structures(self, features: Tensor) -> Tensor:
        """Standard deviations ``[n_structures, n_properties]`` of what has these ``features [n_structures, width]``."""
        return self.known(features).unsqueeze(1) * self.scale[:1]

    def of_atoms(self, features: Tensor, type_index: Tensor) -> Tensor:
        """``[n_atoms, n_properties]``, alike."""
        scale = self.scale.index_select(0, type_index)
        if len(self.by_group) == 0 or features.is_cuda:  # there, nobody waits for a product
            return self.known(features).unsqueeze(1) * scale
        n, width = features.shape[0], features.shape[1] // self.groups
        every = torch.arange(n, device=features.device)
        own = features.reshape(n * self.groups, width)
        own = own.index_select(0, every * self.groups + type_index)
        order = torch.argsort(type_index)
        counts: List[int] = torch.bincount(type_index, minlength=self.groups).tolist()
        of_groups = own.index_select(0, order).split_with_sizes(counts)
        parts: List[Tensor] = []
        for k, known in enumerate(self.by_group):
            parts.append(known(of_groups[k]))
        y = torch.zeros(n, dtype=scale.dtype, device=scale.device)
        return y.index_copy(0, order, torch.cat(parts)).unsqueeze(1) * scale

    def ensemble(self, values: Tensor, features: Tensor, type_index: Tensor) -> Tensor:
        """Members ``[n_atoms, n_members]`` of the model's ``values [n_atoms, 1]``, in the target's unit."""
        physical = self.affine([values], type_index)[0]
        scale = self.scale.index_select(0, type_index)
        return physical + torch.mm(features.to(self.members.dtype), self.members) * scale

    @torch.jit.ignore
    def set(self, found: Spectrum, ridge: float, alpha: Tensor, members: Tensor) -> None:
        """Take what was found of the features, and the size ``alpha [n_properties]``."""
        known = self.known
        known.basis.copy_(found.vectors)
        known.taken.copy_(taken_off(found, ridge))
        known.floor.fill_(1.0 / ridge)
        self.scale.copy_(alpha * self.affine.scale)
        self.members.copy_(members)

    @torch.jit.ignore
    def shorten(self, dtype: torch.dtype) -> None:
        """See :meth:`Known.shorten`; where that is worth it, groups of features get what is known of each alone."""
        known, width = self.known, len(self.known.basis) // self.groups
        basis, taken, floor = known.basis, known.taken, known.floor
        known.shorten(dtype)
        if known.rest.shape[1] == 0 or self.groups == 1:
            return
        for rows in basis.split(width):
            values, vectors = torch.linalg.eigh((rows * taken) @ rows.t())
            values = torch.where(values > NEGLIGIBLE * floor, values, 0.0)
            self.by_group.append(Known(vectors, values, floor.clone()))
            self.by_group[-1].shorten(dtype)  # type: ignore[operator]


class Llpr(Model):
    """A trained model's own predictions, with a standard deviation of each target and, if wanted, an ensemble.

    Structures' features are sums over atoms, so a structure's standard deviation is no sum of its atoms'.
    """

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo, backbone: Backbone) -> None:
        super().__init__()
        self.precision: Tensor
        self.register_buffer(
            "precision", torch.zeros(1)
        )  # that of the network, the first in its state
        self.backbone = backbone
        inner = backbone.model
        self.cutoff = backbone.cutoff
        self.interaction_range = backbone.interaction_range
        self.baseline = inner.baseline
        self.differentiable = hypers.differentiable
        n_members = _members(hypers, dataset_info)
        widths = inner.feature_outputs()
        last_layers = {n: o for n, o in inner.last_layer_outputs().items() if o in widths}
        _check_targets(dataset_info, backbone, last_layers)
        known = DatasetInfo.from_dict(backbone.checkpoint["dataset_info"])
        self.type_index: Tensor
        self.register_buffer("type_index", type_table(known.atomic_types), persistent=False)
        # by target, names of outputs; "" where there is none
        self.features: Dict[str, str] = {}
        self.of_structures: Dict[str, str] = {}
        self.of_atoms: Dict[str, str] = {}
        self.ensembles: Dict[str, str] = {}
        self.posteriors = nn.ModuleDict()
        for name, target in dataset_info.targets.items():
            _, affine = affine_of_checkpoint(backbone.checkpoint, name)
            assert affine is not None
            self.features[name] = last_layers[name]
            uncertainty = uncertainty_name(name)
            self.of_atoms[name] = uncertainty if target.per_atom else f"{uncertainty} of atoms"
            self.of_structures[name] = "" if target.per_atom else uncertainty
            self.ensembles[name] = ensemble_name(name) if n_members[name] else ""
            width, groups = widths[last_layers[name]], inner.last_layer_groups(name)
            self.posteriors[name] = Posterior(width, groups, n_members[name], affine)

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """See :meth:`atomtrain.model.Model.forward`; what is asked of the model inside is asked once."""
        as_it_is = self._of_the_model(outputs)
        inside, held = self._wanted(outputs, as_it_is)
        if held and len(inside) > len(as_it_is):
            graph = _detached(graph)
        found: Dict[str, List[Tensor]] = self.backbone.model(graph, inside)

        predictions: Dict[str, List[Tensor]] = {}
        for output in as_it_is:
            predictions[output] = found[output]
        type_index = self.type_index.index_select(0, graph.types)
        for name, posterior in self.posteriors.items():
            of_structures, of_atoms = self.of_structures[name], self.of_atoms[name]
            if of_structures in outputs or of_atoms in outputs:
                x = found[self.features[name]][0]
                if held:
                    x = x.detach()
                if of_structures in outputs:
                    sums = pool(x, graph, "sum")
                    predictions[of_structures] = [posterior.of_structures(sums)]  # type: ignore[operator]
                if of_atoms in outputs:
                    predictions[of_atoms] = [posterior.of_atoms(x, type_index)]  # type: ignore[operator]
            if self.ensembles[name] in outputs:
                x = found[self.features[name]][0]
                members = posterior.ensemble(found[name][0], x, type_index)  # type: ignore[operator]
                if self.baseline is not None:
                    for other, more in self.baseline(graph, [name]).items():
                        if other == name:
                            members = members + more.unsqueeze(1)
                predictions[self.ensembles[name]] = [members]
        return predictions

    def _of_the_model(self, outputs: List[str]) -> List[str]:
        """Those that the model inside gives."""
        own: List[str] = []
        for name in self.posteriors.keys():  # noqa: SIM118 (TorchScript)
            own += [self.of_structures[name], self.of_atoms[name], self.ensembles[name]]
        others: List[str] = []  # TorchScript knows no comprehension with a condition
        for output in outputs:
            if output not in own:
                others.append(output)
        return others

    def _wanted(self, outputs: List[str], as_it_is: List[str]) -> Tuple[List[str], bool]:
        """What the model inside is asked for, and whether nobody differentiates its features."""
        inside: List[str] = []
        inside += as_it_is
        held = not self.differentiable
        for output in as_it_is:
            held = held and output in self.features  # features wanted for their own sake move
        for name in self.posteriors.keys():  # noqa: SIM118 (TorchScript)
            ensemble = self.ensembles[name] in outputs
            width = self.of_structures[name] in outputs or self.of_atoms[name] in outputs
            if ensemble and name not in inside:
                inside.append(name)
            if (width or ensemble) and self.features[name] not in inside:
                inside.append(self.features[name])
            held = held and not ensemble
        return inside, held

    @torch.jit.ignore
    def feature_outputs(self) -> Dict[str, int]:
        """Those of the model inside, uncertainties of targets of atoms, and ensembles, which are sums over atoms."""
        found = dict(self.backbone.model.feature_outputs())
        for name, posterior in self.posteriors.items():
            if not self.of_structures[name]:
                found[self.of_atoms[name]] = posterior.scale.shape[1]  # type: ignore[union-attr, assignment, index]
            if self.ensembles[name]:
                found[self.ensembles[name]] = posterior.members.shape[1]  # type: ignore[union-attr, assignment, index]
        return found

    @torch.jit.ignore
    def structure_outputs(self) -> Dict[str, int]:
        """Uncertainties of targets of structures."""
        return {
            output: self.posteriors[name].scale.shape[1]  # type: ignore[union-attr, index, misc]
            for name, output in self.of_structures.items()
            if output
        }

    @torch.jit.ignore
    def atom_outputs(self) -> Dict[str, str]:
        """Those of single atoms' contributions."""
        return {of: self.of_atoms[name] for name, of in self.of_structures.items() if of}

    @torch.jit.ignore
    def last_layer_outputs(self) -> Dict[str, str]:
        """Those of the model inside."""
        return dict(self.features)

    @torch.jit.ignore
    def last_layer_weights(self, target: str) -> Tensor:
        """Those of the model inside."""
        return self.backbone.model.last_layer_weights(target)

    @torch.jit.ignore
    def last_layer_groups(self, target: str) -> int:
        """Those of the model inside."""
        return self.backbone.model.last_layer_groups(target)

    @torch.jit.ignore
    def layout(self, graph: AtomGraph) -> Dict[str, Tensor]:
        """That of the model inside."""
        return self.backbone.model.layout(graph)

    @torch.jit.ignore
    def is_head(self, parameter: str) -> bool:
        """Everything but the model inside."""
        return not parameter.startswith("backbone.")

    @torch.jit.ignore
    def before_export(self) -> None:
        """See :meth:`atomtrain.model.Model.before_export`."""
        for posterior in self.posteriors.values():
            posterior.shorten(self.precision.dtype)  # type: ignore[operator]


def _detached(graph: AtomGraph) -> AtomGraph:
    """The graph for a model whose features nobody differentiates."""
    extras = graph.extras.copy()
    extras["atomtrain::detached"] = torch.zeros(0)
    return exchanged(graph, graph.vectors, extras)


def _members(hypers: ModelHypers, dataset_info: DatasetInfo) -> Dict[str, int]:
    """How many members each target's ensemble has; 0 for none."""
    said, targets = hypers.num_ensemble_members, dataset_info.targets
    if isinstance(said, int):
        said = dict.fromkeys(targets, said)
    for name, n in said.items():
        where = f"architecture.model.num_ensemble_members: '{name}'"
        if name not in targets:
            raise TargetError(
                f"{where} is no target{did_you_mean(name, targets)} (there are {', '.join(targets)})"
            )
        width = targets[name].width
        if width != 1:
            raise TargetError(
                f"{where} has {width} properties, and ensembles are of targets with one; leave it out ({n} members)"
            )
    return {name: said.get(name, 0) for name in targets}


def _check_targets(
    dataset_info: DatasetInfo, backbone: Backbone, last_layers: Dict[str, str]
) -> None:
    """TargetError for what the model inside does not predict, or says nothing of."""
    architecture = backbone.checkpoint["architecture"]["name"]
    known = DatasetInfo.from_dict(backbone.checkpoint["dataset_info"]).targets
    if not dataset_info.targets:
        raise TargetError(
            "llpr is for scalars that the trained model has a layer of its own for: leave out 'head' and 'pooling' of "
            "the targets, which are that model's"
        )
    for name, target in dataset_info.targets.items():
        if name not in known:
            raise TargetError(
                f"target '{name}': the model in model_checkpoint does not predict it"
                f"{did_you_mean(name, known)} (it predicts {', '.join(known)})"
            )
        own = known[name]
        if (own.blocks, own.per_atom) != (target.blocks, target.per_atom):
            raise TargetError(f"target '{name}' has another shape in the model in model_checkpoint")
        if target.zero_mean:
            raise TargetError(f"target '{name}': llpr knows no targets with remove_mean")
        if uncertainty_name(name) in backbone.model.structure_outputs():
            raise TargetError(
                f"target '{name}': the model in model_checkpoint ({architecture}) gives its uncertainty itself; use it "
                "as it is"
            )
        if name not in last_layers:
            raise TargetError(
                f"target '{name}': the model in model_checkpoint does not say what its last layer takes; its "
                f"architecture, {architecture}, would have to (Model.last_layer_outputs)"
            )
