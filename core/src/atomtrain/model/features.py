"""Level 1: an architecture that describes atoms, and heads of the core that make targets of that.

No ``from __future__ import annotations`` here: TorchScript reads the attribute annotations of the
classes it compiles and does not understand strings.
"""

from typing import Dict, Iterable, List, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn

from atomtrain.errors import PluginError, TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model.base import Model
from atomtrain.model.heads import Head
from atomtrain.model.shapes import check_encoded
from atomtrain.targets import DatasetInfo, TargetInfo, last_layer_names
from atomtrain.tasks import IN_EXTRAS, find_task


class FeatureModel(Model):
    """Level 1: write :meth:`features`, get every target the core has a head for.

    ``n_features`` is the width of the features. ``degrees`` says how many equivariant features of
    each degree :meth:`encode` gives, for targets that turn with the structure.
    """

    def __init__(
        self,
        dataset_info: DatasetInfo,
        n_features: int,
        degrees: Optional[Mapping[int, int]] = None,
    ) -> None:
        super().__init__()
        self.n_features = n_features
        self.degrees: Dict[int, int] = dict(degrees or {})
        self.heads = nn.ModuleDict()
        self.last_layers: Dict[str, str] = {}
        self._add_heads(dataset_info)

    def features(self, graph: AtomGraph) -> Tensor:
        """Features ``[n_atoms, n_features]`` that no rotation of a structure changes."""
        raise NotImplementedError

    def encode(self, graph: AtomGraph) -> Tuple[Tensor, Dict[int, Tensor]]:
        """The features, and equivariant ones ``[n_atoms, 2 l + 1, n]`` by degree ``l``.

        Override it, instead of :meth:`features`, where there are any. Components are ordered as
        metatomic orders them (degree 1: y, z, x), and an inversion multiplies those of degree ``l``
        by ``(-1)**l``.
        """
        equivariant: Dict[int, Tensor] = {}
        return self.features(graph), equivariant

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """See :meth:`Model.forward`."""
        encoded = self.encode(graph)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            check_encoded(self, graph, encoded, self.n_features, self.degrees)
        invariant, equivariant = encoded
        predictions: Dict[str, List[Tensor]] = {}
        if "feature" in outputs:
            predictions["feature"] = [invariant]
        for name, head in self.heads.items():
            last_layer = self.last_layers[name]
            if name in outputs or last_layer in outputs:
                hidden = head.hidden(graph, invariant)  # type: ignore[operator]
                if name in outputs:
                    predictions[name] = head(hidden, equivariant)
                if last_layer in outputs:
                    predictions[last_layer] = [hidden]
        return predictions

    @torch.jit.ignore
    def feature_outputs(self) -> Dict[str, int]:
        """``feature``: the features themselves, and what the last layers of scalars take."""
        heads = {o: self.heads[target] for target, o in self.last_layer_outputs().items()}
        return {"feature": self.n_features, **{o: head.width for o, head in heads.items()}}  # type: ignore[misc]

    @torch.jit.ignore
    def make_head(self, target: TargetInfo) -> nn.Module:
        """A fresh head of the target; TargetError for what there is none for.

        To be overridden where some targets have heads of the model's own. Such a module has
        ``hidden(graph, invariant)``, which gives what its last layer takes, ``[n_atoms, width]`` with its attribute
        ``width``, and ``forward(hidden, equivariant)``, which gives the target's blocks; for scalars override
        :meth:`last_layer_weights` too. ``__init__`` makes heads before anything of a subclass is there: one that
        needs it first builds with a data set without targets, and ends with :meth:`retarget`.
        """
        if target.layout == "scalar":
            return _Scalars(target, self.n_features)
        missing = {degree for degree, _ in _parts(target)} - {0, *self.degrees}
        if missing:
            raise TargetError(
                f"target '{target.name}' is of degree {_listed(missing)}, and {type(self).__name__} has equivariant "
                f"features of degree {_listed(self.degrees) or '(none)'}"
            )
        return _Tensors(target, self.n_features, self.degrees)

    @torch.jit.ignore
    def last_layer_outputs(self) -> Dict[str, str]:
        """Of scalars that are sums over atoms, or belong to them."""
        return {target: output for target, output in self.last_layers.items() if output}

    @torch.jit.ignore
    def last_layer_weights(self, target: str) -> Tensor:
        """See :meth:`Model.last_layer_weights`."""
        return self.heads[target].head.output.weight  # type: ignore[union-attr, return-value]

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        """New targets get fresh heads, those that are gone lose theirs."""
        for name in list(self.heads):
            if name not in dataset_info.targets:
                del self.heads[name]
        self.last_layers = {}
        example = next(self.parameters(), torch.zeros(()))
        self._add_heads(dataset_info)
        self.to(example.device, example.dtype)

    @torch.jit.ignore
    def _add_heads(self, dataset_info: DatasetInfo) -> None:
        scalars = {
            n: t.layout == "scalar" and not t.pooled for n, t in dataset_info.targets.items()
        }
        # TorchScript knows no empty dictionary
        self.last_layers = {
            **dict.fromkeys(scalars, ""),
            **last_layer_names([name for name, is_one in scalars.items() if is_one]),
        }
        for name, target in dataset_info.targets.items():
            if name in self.heads:
                continue
            self.heads[name] = self.make_head(target)


class _Scalars(nn.Module):
    """A head of the core behind the face that all heads have here."""

    def __init__(self, target: TargetInfo, n_features: int) -> None:
        super().__init__()
        self.head = Head(target, n_features)
        self.width = self.head.output.in_features

    def hidden(self, graph: AtomGraph, invariant: Tensor) -> Tensor:
        """What the last layer takes."""
        return self.head.hidden(invariant, graph)

    def forward(self, hidden: Tensor, equivariant: Dict[int, Tensor]) -> List[Tensor]:
        """One block ``[n_atoms, n_properties]``."""
        return [self.head.output(hidden)]


class _Tensors(nn.Module):
    """Vectors and spherical tensors.

    A block of degree ``l`` is a linear combination of the equivariant features of that degree, each
    multiplied by a linear function of the invariant ones.
    """

    def __init__(self, target: TargetInfo, n_features: int, degrees: Mapping[int, int]) -> None:
        super().__init__()
        self.degrees: List[int] = []
        self.gates = nn.ModuleList()
        self.outputs = nn.ModuleList()
        for degree, n in _parts(target):
            width = degrees[degree] if degree > 0 else n_features
            self.degrees.append(degree)
            self.gates.append(nn.Linear(n_features, width))
            self.outputs.append(nn.Linear(width, n, bias=degree == 0))
        self.cartesian = target.layout == "cartesian"

    def hidden(self, graph: AtomGraph, invariant: Tensor) -> Tensor:
        """The invariant features themselves."""
        return invariant

    def forward(self, invariant: Tensor, equivariant: Dict[int, Tensor]) -> List[Tensor]:
        """Blocks ``[n_atoms, *components, n_properties]``."""
        blocks: List[Tensor] = []
        for k, (gate, output) in enumerate(zip(self.gates, self.outputs)):  # noqa: B905
            degree = self.degrees[k]
            tensor = invariant.unsqueeze(1) if degree == 0 else equivariant[degree]
            values = output(torch.tanh(gate(invariant)).unsqueeze(1) * tensor)
            if self.cartesian:
                values = values.roll(1, 1)  # y, z, x -> x, y, z
            blocks.append(values)
        return blocks


def check_declared(model: Model, kinds: Iterable[str], architecture: str) -> None:
    """Raise PluginError for equivariant features that no target kind of the description asks for.

    Users with vectors would be refused, whatever the model can do.
    """
    kinds = tuple(kinds)
    if isinstance(model, FeatureModel) and model.degrees and all(map(_of_scalars, kinds)):
        raise PluginError(
            f"architecture '{architecture}': {type(model).__name__} gives equivariant features "
            f"(degrees={model.degrees}), but describe_architecture declares no target made of them "
            f"(target_kinds={kinds}); its author must add 'cartesian' or 'spherical' to target_kinds, or "
            "leave out degrees"
        )


def _of_scalars(kind: str) -> bool:
    """Whether targets of this kind surely are; what a package's own kind is, it alone knows."""
    if kind == "scalar" or kind in IN_EXTRAS:
        return True
    task = find_task(kind)
    return task is not None and task.classification


def _listed(degrees: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(degrees)))


def _parts(target: TargetInfo) -> List[Tuple[int, int]]:
    """Degree and number of properties of each block; TargetError for what no head makes."""
    if target.layout == "cartesian" and target.rank == 1:
        return [(1, target.num_subtargets)]
    if target.layout == "spherical" and all(i.o3_sigma == 1 for i in target.irreps):
        return [(i.o3_lambda, i.num) for i in target.irreps]
    raise TargetError(
        f"target '{target.name}': the core has heads for scalars, cartesian vectors and spherical "
        "tensors with o3_sigma 1; anything else needs an architecture that predicts it itself"
    )
