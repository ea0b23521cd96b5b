"""A trained model inside another one: what an architecture that builds on somebody's model needs.

No ``from __future__ import annotations`` here: TorchScript reads the attribute annotations of the
classes it compiles and does not understand strings.
"""

from typing import Any, Dict

import torch
from torch import Tensor, nn

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model.base import Constants, Model


class Backbone(nn.Module):
    """A frozen model that gives the features of atoms (see :mod:`atomtrain.training.backbone`).

    Its weights are not in the surrounding model's state: the ``checkpoint`` it came from is embedded
    in that model's checkpoints under ``name``, whole, so that its own architecture can upgrade it.

    Attributes: ``n_features``, and ``cutoff`` and ``interaction_range`` as in :class:`Model`.
    """

    def __init__(self, model: Model, checkpoint: Dict[str, Any], name: str = "backbone") -> None:
        super().__init__()
        widths = model.feature_outputs()
        if "feature" not in widths:
            raise TargetError(
                f"{type(model).__name__} cannot be a backbone: it offers no output 'feature'"
            )
        self.model = model.requires_grad_(False).eval()
        self.n_features = widths["feature"]
        self.cutoff = float(model.cutoff)
        self.interaction_range = float(model.interaction_range)
        self.name = name
        self.checkpoint = checkpoint

    def forward(self, graph: AtomGraph) -> Tensor:
        """Features ``[n_atoms, n_features]``, those kept for this batch where nothing moves."""
        if "backbone/feature" in graph.extras and not graph.vectors.requires_grad:
            return graph.extras["backbone/feature"]
        return self.model(graph, ["feature"])["feature"][0]

    @torch.jit.ignore
    def constants(self, graph: AtomGraph) -> Constants:
        """The features, to be returned by the surrounding model's ``constants``: computed once."""
        with torch.no_grad():
            feature = self.model(graph, ["feature"])["feature"][0]
        return Constants(per_atom={"backbone/feature": feature})

    @torch.jit.ignore
    def train(self, mode: bool = True) -> "Backbone":
        """Stays in evaluation mode: a frozen model has no dropout."""
        return super().train(False)

    @torch.jit.ignore
    def state_dict(self, *args: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Nothing: the weights are in ``checkpoint``."""
        return {} if destination is None else destination

    @torch.jit.ignore
    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        # what state_dict leaves out is not missing: the children find what they have already
        for name, value in self.model.state_dict().items():
            state_dict[f"{prefix}model.{name}"] = value


def embedded_checkpoints(model: nn.Module) -> Dict[str, Any]:
    """The checkpoints of the models inside this one, by name: ``embedded`` of its own checkpoint."""
    return {
        module.name: module.checkpoint for module in model.modules() if isinstance(module, Backbone)
    }
