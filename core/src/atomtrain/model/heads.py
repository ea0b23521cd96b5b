"""Heads of the core: small networks on an architecture's features, for what it does not predict.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from dataclasses import replace
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph, n_structures, sum_over_structures
from atomtrain.model.base import Model
from atomtrain.model.growth import Growth
from atomtrain.options import HeadSection
from atomtrain.targets import DatasetInfo, TargetInfo, last_layer_names

State = Dict[str, Tensor]


def pool(values: Tensor, graph: AtomGraph, how: str) -> Tensor:
    """``sum``, ``mean`` or ``max`` of ``values [n_atoms, d]`` over each structure.

    ``mean_std`` is the mean and, beside it, the standard deviation: ``[n_structures, 2 d]``.

    Only over atoms where the extra input ``atomtrain::selected [n_atoms]`` is true, if there is one
    (the exported model passes on an engine's selection). Structures without any give 0.
    """
    structure, n = graph.structure, n_structures(graph)
    if "atomtrain::selected" in graph.extras:
        rows = graph.extras["atomtrain::selected"].nonzero().squeeze(1)
        values, structure = values.index_select(0, rows), structure.index_select(0, rows)
    if how == "max":
        shape = [n, values.shape[1]]
        empty = torch.full(shape, -float("inf"), dtype=values.dtype, device=values.device)
        index = structure.unsqueeze(1).expand(values.shape)
        largest = empty.scatter_reduce(0, index, values, "amax")
        return torch.where(torch.isinf(largest), torch.zeros_like(largest), largest)
    total = sum_over_structures(values, structure, n)
    if how == "sum":
        return total
    ones = torch.ones_like(values[:, :1])
    counts = sum_over_structures(ones, structure, n).clamp(min=1.0)
    mean = total / counts
    if how == "mean":
        return mean
    squares = (values - mean.index_select(0, structure)).square()
    variance = sum_over_structures(squares, structure, n) / counts
    return torch.cat([mean, (variance + 1e-10).sqrt()], dim=1)  # a root of 0 has no derivative


def pooled_width(n_features: int, how: str) -> int:
    """Columns of :func:`pool` for features of this width."""
    return 2 * n_features if how == "mean_std" else n_features


_ACTIVATIONS = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}
_NORMS = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


class _Block(nn.Module):
    """Norm, layer, activation, dropout, and the input added again."""

    def __init__(self, options: HeadSection) -> None:
        super().__init__()
        width = options.hidden_dim
        self.residual = options.residual
        self.layers = nn.Sequential(
            _NORMS[options.norm](width),
            nn.Linear(width, width, bias=options.bias),
            _ACTIVATIONS[options.activation](),
            nn.Dropout(options.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class Head(nn.Module):
    """Features to the numbers of one target.

    Targets of atoms, and sums over atoms, are computed atom by atom; for others features are pooled
    over the structure first. ``options`` as in :class:`atomtrain.options.HeadSection`.
    """

    def __init__(self, target: TargetInfo, n_features: int) -> None:
        super().__init__()
        options = HeadSection.model_validate(target.head)
        width = options.hidden_dim
        self.pooling: str = target.pooling if target.pooled else ""
        self.embedding = nn.Sequential(
            nn.Linear(n_features, width, bias=options.bias),
            _ACTIVATIONS[options.activation](),
        )
        self.blocks = nn.Sequential(*(_Block(options) for _ in range(options.num_hidden)))
        self.output = nn.Linear(width, target.width, bias=options.bias)

    def hidden(self, features: Tensor, graph: AtomGraph) -> Tensor:
        """What the last layer takes: ``[n_atoms or n_structures, hidden_dim]``."""
        if self.pooling != "":
            features = pool(features, graph, self.pooling)
        x: Tensor = self.blocks(self.embedding(features))
        return x

    def forward(self, features: Tensor, graph: AtomGraph) -> Tensor:
        """``[n_atoms, n_features]`` -> ``[n_atoms or n_structures, width]``."""
        out: Tensor = self.output(self.hidden(features, graph))
        return out


class WithHeads(Model):
    """An architecture's model (the encoder) with heads of the core on its output ``feature``."""

    def __init__(self, encoder: Model, targets: Dict[str, TargetInfo]) -> None:
        super().__init__()
        n_features = encoder.feature_outputs().get("feature")
        if n_features is None:
            raise TargetError(
                f"{', '.join(targets)}: {type(encoder).__name__} gives no output 'feature', which "
                "a head of the core for these targets would work on"
            )
        self.encoder = encoder
        self.cutoff = encoder.cutoff
        self.interaction_range = encoder.interaction_range
        # it is the outer model that the core asks for the baseline
        self.baseline, encoder.baseline = encoder.baseline, None
        example = next(iter(encoder.parameters()))
        self.heads = nn.ModuleDict(
            {
                name: Head(target, n_features).to(example.device, example.dtype)
                for name, target in targets.items()
            }
        )
        self.names: List[str] = list(targets)
        sums = [name for name, target in targets.items() if not target.pooled]
        # TorchScript knows no empty dictionary
        self.last_layers: Dict[str, str] = {
            **dict.fromkeys(targets, ""),
            **last_layer_names(sums, encoder.feature_outputs()),
        }

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """See :meth:`Model.forward`; pooled targets come as ``[n_structures, n]``."""
        wanted: List[str] = []
        headed = False
        own = list(self.last_layers.values())
        for name in outputs:
            if name in self.names or name in own:
                headed = True
            else:
                wanted.append(name)
        if headed and "feature" not in wanted:
            wanted.append("feature")
        predictions: Dict[str, List[Tensor]] = self.encoder(graph, wanted)
        if headed:
            features = predictions["feature"][0]
            for name, head in self.heads.items():
                last_layer = self.last_layers[name]
                if name in outputs or last_layer in outputs:
                    hidden = head.hidden(features, graph)  # type: ignore[operator]
                    if name in outputs:
                        predictions[name] = [head.output(hidden)]  # type: ignore[operator]
                    if last_layer in outputs:
                        predictions[last_layer] = [hidden]
        return predictions

    @torch.jit.ignore
    def expect(self, dataset_info: DatasetInfo) -> None:
        """It is the encoder's blocks that may be wrong."""
        targets = {n: t for n, t in dataset_info.targets.items() if n not in self.names}
        self.encoder.expect(replace(dataset_info, targets=targets))

    @torch.jit.ignore
    def feature_outputs(self) -> Dict[str, int]:
        """Those of the encoder, and what the heads' last layers take."""
        own = {o: self.heads[t].output.in_features for t, o in self._own_last_layers().items()}  # type: ignore[union-attr]
        return {**self.encoder.feature_outputs(), **own}  # type: ignore[dict-item]

    @torch.jit.ignore
    def last_layer_outputs(self) -> Dict[str, str]:
        """Those of the encoder's own targets, and of the heads'."""
        return {**self.encoder.last_layer_outputs(), **self._own_last_layers()}

    @torch.jit.ignore
    def last_layer_weights(self, target: str) -> Tensor:
        """See :meth:`Model.last_layer_weights`."""
        if target not in self.names:
            return self.encoder.last_layer_weights(target)
        return self.heads[target].output.weight  # type: ignore[union-attr, return-value]

    @torch.jit.ignore
    def last_layer_groups(self, target: str) -> int:
        """See :meth:`Model.last_layer_groups`; heads serve all elements."""
        return 1 if target in self.names else self.encoder.last_layer_groups(target)

    @torch.jit.ignore
    def _own_last_layers(self) -> Dict[str, str]:
        return {target: output for target, output in self.last_layers.items() if output}

    @torch.jit.ignore
    def structure_outputs(self) -> Dict[str, int]:
        """Those of the encoder."""
        return self.encoder.structure_outputs()

    @torch.jit.ignore
    def atom_outputs(self) -> Dict[str, str]:
        """Those of the encoder."""
        return self.encoder.atom_outputs()

    @torch.jit.ignore
    def constants(self, graph: AtomGraph):  # type: ignore[no-untyped-def]
        """Those of the encoder."""
        return self.encoder.constants(graph)

    @torch.jit.ignore
    def layout(self, graph: AtomGraph) -> Dict[str, Tensor]:
        """See :meth:`Model.layout`."""
        return self.encoder.layout(graph)

    @torch.jit.ignore
    def calibrate(self, batches):  # type: ignore[no-untyped-def]
        """The encoder's business."""
        self.encoder.calibrate(batches)

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """The encoder grows, and the heads with its features."""
        assert isinstance(trained, WithHeads)
        self.encoder.grow(trained.encoder, growth)
        growth.take_over(self.heads, trained.heads)

    @torch.jit.ignore
    def keeps_structures(self) -> bool:
        """Never: heads work on the features of atoms."""
        return False

    @torch.jit.ignore
    def is_head(self, parameter: str) -> bool:
        """The core's heads, and what the encoder calls its own."""
        if parameter.startswith("heads."):
            return True
        return self.encoder.is_head(parameter.removeprefix("encoder."))


def split_targets(
    info: DatasetInfo, kinds: Tuple[str, ...], architecture: str
) -> Tuple[DatasetInfo, Dict[str, TargetInfo]]:
    """What an architecture that fits ``kinds`` predicts itself, and what heads of the core do.

    Its own targets are described by their layouts, so that it need not know of tasks. Raises
    TargetError for a target neither can predict.
    """
    own: Dict[str, TargetInfo] = {}
    headed: Dict[str, TargetInfo] = {}
    for name, target in info.targets.items():
        plain = not target.head and not (target.pooled and target.plain)
        if plain and target.kind in kinds:
            own[name] = target
        elif target.layout == "scalar":
            headed[name] = target
        elif plain and target.layout in kinds and not target.pooled:
            own[name] = replace(target, kind=target.layout, extra={})
        else:
            if target.layout in kinds:
                why = "neither 'head' nor 'pooling' can be given for tensors: remove them"
            else:
                why = (
                    f"it is made of {_tensors(target)}, which turn with the structure, and no head can make "
                    "them of features that do not; an author whose model has such features declares "
                    f"'{target.layout}' in target_kinds"
                )
            raise TargetError(
                f"target '{name}': architecture '{architecture}' cannot fit type '{target.kind}' "
                f"(it fits {', '.join(kinds)}): {why}"
            )
    return DatasetInfo(info.length_unit, info.atomic_types, own), headed


def _tensors(target: TargetInfo) -> str:
    """What a target that is no scalar is made of, in words."""
    if target.layout == "cartesian":
        return "vectors (degree 1)" if target.rank == 1 else f"tensors of rank {target.rank}"
    degrees = sorted({irrep.o3_lambda for irrep in target.irreps})
    return f"tensors of degree {', '.join(map(str, degrees))}"


def with_heads(encoder: Model, targets: Dict[str, TargetInfo]) -> Model:
    """``encoder`` itself where no target needs a head of the core."""
    return WithHeads(encoder, targets) if targets else encoder


def retarget(
    model: Model, before: DatasetInfo, own: DatasetInfo, headed: Dict[str, TargetInfo]
) -> Model:
    """A trained model for other targets: heads that are still wanted stay, new ones are fresh.

    ``before`` is what the encoder fitted itself, ``own`` and ``headed`` are as of
    :func:`split_targets`.
    """
    kept: Dict[str, nn.Module] = {}
    encoder = model
    if isinstance(model, WithHeads):
        kept = dict(model.heads.items())
        encoder = model.encoder
        encoder.baseline = model.baseline
    if own != before:
        encoder.retarget(own)
    new = with_heads(encoder, headed)
    for name, head in kept.items():
        if name in headed:
            fresh = new.get_submodule(f"heads.{name}")
            shapes = [p.shape for p in fresh.parameters()]
            if shapes == [p.shape for p in head.parameters()]:
                fresh.load_state_dict(head.state_dict())
    return new


def saved_states(
    last: State, best: Optional[State], model: Model
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """The weights of ``model`` as a checkpoint has them: the architecture's own, and the heads'.

    Both by ``last`` and ``best``. The architecture's are called as if there were no heads of the core,
    and upgraded by its plugin.
    """
    own, heads = _split(last, model)
    other, other_heads = (None, None) if best is None else _split(best, model)
    return {"last": own, "best": other}, {"last": heads, "best": other_heads}


def saved_state(checkpoint: Dict[str, Any], which: str, model: Model) -> State:
    """The weights ``last`` or ``best`` of ``model`` that :func:`saved_states` put into a checkpoint."""
    own: State = checkpoint["model"][which]
    if not isinstance(model, WithHeads):
        return dict(own)
    heads = (checkpoint["core"].get("heads") or {}).get(which) or {}
    state = {n if n.startswith("baseline.") else f"encoder.{n}": v for n, v in own.items()}
    state.update({f"heads.{n}": v for n, v in heads.items()})
    return state


def _split(state: State, model: Model) -> Tuple[State, State]:
    if not isinstance(model, WithHeads):
        return dict(state), {}
    own = {n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")}
    # what is neither belongs to the encoder's baseline, which has moved to the outside
    own.update({n: v for n, v in state.items() if n.startswith("baseline.")})
    heads = {n.removeprefix("heads."): v for n, v in state.items() if n.startswith("heads.")}
    return own, heads
