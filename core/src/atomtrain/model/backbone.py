"""A trained model inside another one: what an architecture that builds on somebody's model needs.

No ``from __future__ import annotations`` here: TorchScript reads the attribute annotations of the
classes it compiles and does not understand strings.
"""

import hashlib
import json
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model.base import Constants, Model
from atomtrain.model.heads import State, saved_state, saved_states


class Backbone(nn.Module):
    """A model that gives the features of atoms (see :mod:`atomtrain.training.backbone`).

    It is frozen, unless it is ``trainable`` and :meth:`unfreeze` was called; it stays in evaluation
    mode then too. Its weights are not in the surrounding model's part of a checkpoint: the
    ``checkpoint`` it came from is embedded there under ``name``, whole and with the weights of
    today, so that its own architecture can upgrade it. Without ``features`` it need not offer any:
    whoever has it asks its ``model`` for something else.

    Attributes: ``n_features``, ``cutoff`` and ``interaction_range`` as in :class:`Model`, and the
    ``devices`` and ``dtypes`` its architecture runs on and the ``references`` it names.
    """

    def __init__(
        self,
        model: Model,
        checkpoint: Dict[str, Any],
        name: str = "backbone",
        *,
        features: bool = True,
        trainable: bool = False,
        devices: Tuple[str, ...] = ("cuda", "cpu"),
        dtypes: Tuple[str, ...] = ("float32", "float64"),
        references: Optional[Mapping[str, Tuple[str, ...]]] = None,
    ) -> None:
        super().__init__()
        widths = model.feature_outputs()
        if features and "feature" not in widths:
            raise TargetError(
                f"{type(model).__name__} cannot be a backbone: it offers no output 'feature' of "
                "atoms; take a model of another architecture"
            )
        self.model = model.requires_grad_(False).eval()
        self.n_features = widths.get("feature", 0)
        self.cutoff = float(model.cutoff)
        self.interaction_range = float(model.interaction_range)
        self.name = name
        self.checkpoint = checkpoint
        self.trainable = trainable
        self.frozen = True
        self.devices = list(devices)
        self.dtypes = list(dtypes)
        self.references = {key: list(value) for key, value in (references or {}).items()}
        self._fingerprint = ""

    def forward(self, graph: AtomGraph) -> Tensor:
        """Features ``[n_atoms, n_features]``, those kept for this batch where nothing moves."""
        if "backbone/feature" in graph.extras and not graph.vectors.requires_grad:
            return graph.extras["backbone/feature"]
        return self.model(graph, ["feature"])["feature"][0]

    @torch.jit.ignore
    def constants(self, graph: AtomGraph) -> Constants:
        """To be returned by the surrounding model's ``constants``.

        While it is frozen these are the features, computed once; else what it keeps itself.
        """
        if not self.frozen:
            return self.model.constants(graph)
        with torch.no_grad():
            feature = self.model(graph, ["feature"])["feature"][0]
        return Constants(per_atom={"backbone/feature": feature})

    @torch.jit.ignore
    def unfreeze(self) -> None:
        """Train the weights from now on; models inside this one stay as they are."""
        assert self.trainable
        self.frozen = False
        self._fingerprint = ""
        for parameter in self.trained():
            parameter.requires_grad_(True)

    @torch.jit.ignore
    def trained(self) -> Iterator[nn.Parameter]:
        """The parameters that :meth:`unfreeze` is about."""
        inner = [m for m in self.model.modules() if isinstance(m, Backbone)]
        left_out = {id(p) for m in inner for p in m.parameters()}
        return (p for p in self.model.parameters() if id(p) not in left_out)

    @torch.jit.ignore
    def fingerprint(self) -> str:
        """Hash of what decides on the features: architecture, hypers, weights."""
        if not self._fingerprint:
            digest = hashlib.sha256()
            identity = self.checkpoint.get("architecture"), self.checkpoint.get("hypers", {})
            digest.update(json.dumps([identity[0], identity[1].get("model")]).encode())
            for name, value in sorted(_whole_state(self.model).items()):
                digest.update(name.encode())
                raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(raw.numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    @torch.jit.ignore
    def train(self, mode: bool = True) -> "Backbone":
        """Stays in evaluation mode: nothing is to depend on dropout or on the batch."""
        return super().train(False)

    @torch.jit.ignore
    def weights(self, which: str) -> State:
        """The model's weights as its checkpoint has them, ``last`` or ``best``."""
        which = which if self.checkpoint["model"].get(which) else "last"
        return saved_state(self.checkpoint, which, self.model)

    @torch.jit.ignore
    def checkpoint_with(self, last: State, best: Optional[State]) -> Dict[str, Any]:
        """The checkpoint with other weights."""
        own, heads = saved_states(last, best, self.model)
        core = {**self.checkpoint["core"], "heads": heads}
        return {**self.checkpoint, "model": own, "core": core}

    @torch.jit.ignore
    def state_dict(self, *args: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Nothing while it cannot be trained: the weights are in ``checkpoint``."""
        if self.trainable:
            return super().state_dict(*args, destination=destination, **kwargs)
        return {} if destination is None else destination

    @torch.jit.ignore
    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        # what state_dict leaves out is not missing: the children find what they have already
        for name, value in self.model.state_dict().items():
            state_dict.setdefault(f"{prefix}model.{name}", value)


def backbones(model: nn.Module) -> Dict[str, Backbone]:
    """The models inside this one by their place in it, without those inside them."""
    found: Dict[str, Backbone] = {}
    for path, module in model.named_modules():
        if isinstance(module, Backbone) and not any(path.startswith(f"{p}.") for p in found):
            found[path] = module
    return found


def waiting_parameters(model: nn.Module) -> Dict[int, nn.Parameter]:
    """By ``id``, those that are frozen now but may be trained later."""
    found = [m for m in backbones(model).values() if m.trainable]
    return {id(p): p for module in found for p in module.trained()}


def embedded_checkpoints(
    model: nn.Module, last: State, best: Optional[State]
) -> Tuple[State, Optional[State], Dict[str, Any]]:
    """States of a model without the weights of the models inside it, and their checkpoints by name.

    The checkpoints are ``embedded`` of the model's own one.
    """
    embedded: Dict[str, Any] = {}
    for path, module in backbones(model).items():
        embedded[module.name] = module.checkpoint
        if module.trainable:
            prefix = f"{path}.model."
            last, inner = _taken(last, prefix)
            inner_best = None
            if best is not None:
                best, inner_best = _taken(best, prefix)
            embedded[module.name] = module.checkpoint_with(inner, inner_best)
    return last, best, embedded


def with_embedded(model: nn.Module, state: State, which: str) -> State:
    """The inverse for one state: with the weights of the models that may be trained."""
    for path, module in backbones(model).items():
        if module.trainable:
            inner = {f"{path}.model.{name}": w for name, w in module.weights(which).items()}
            state = {**state, **inner}
    return state


def _taken(state: State, prefix: str) -> Tuple[State, State]:
    inner = {n.removeprefix(prefix): w for n, w in state.items() if n.startswith(prefix)}
    return {n: w for n, w in state.items() if not n.startswith(prefix)}, inner


def _whole_state(model: nn.Module) -> State:
    """Parameters and buffers, of inner models too (a Backbone's state_dict leaves them out)."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
