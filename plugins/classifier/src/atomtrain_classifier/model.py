"""The classifier as a module: pooled features of a backbone, a small network, logits by target.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Dict, List

import torch
from torch import Tensor, nn

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model import Backbone, Constants, Growth, Model
from atomtrain.model.heads import pool, pooled_width
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain_classifier.hypers import ModelHypers

POOLED = "classifier/pooled"


class Classifier(Model):
    """See the hypers for what can be chosen.

    All targets share the hidden layers; each has a linear layer of its own.
    """

    def __init__(self, hypers: ModelHypers, dataset_info: DatasetInfo, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.cutoff = backbone.cutoff
        self.interaction_range = backbone.interaction_range
        self.pooling: str = hypers.pooling
        self.sizes: List[int] = list(hypers.hidden_sizes)
        self.feature_layer: int = hypers.feature_layer_index % len(self.sizes)
        width = pooled_width(backbone.n_features, self.pooling)
        self.layers = nn.ModuleList()
        for k, size in enumerate(self.sizes):
            last = k == len(self.sizes) - 1
            norm = nn.Identity() if last else nn.LayerNorm(width)
            self.layers.append(nn.Sequential(norm, nn.Linear(width, size), nn.SiLU()))
            width = size
        self.heads = nn.ModuleDict()
        self._add_heads(dataset_info)

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """See :meth:`atomtrain.model.Model.forward`; everything is ``[n_structures, n]``."""
        if "classifier/pooled" in graph.extras and not graph.vectors.requires_grad:
            x = graph.extras["classifier/pooled"]
        else:
            x = pool(self.backbone(graph), graph, self.pooling)
        predictions: Dict[str, List[Tensor]] = {}
        for k, layer in enumerate(self.layers):
            x = layer(x)
            if k == self.feature_layer and "feature" in outputs:
                predictions["feature"] = [x]
        for name, head in self.heads.items():
            if name in outputs:
                predictions[name] = [head(x)]
        return predictions

    @torch.jit.ignore
    def structure_outputs(self) -> Dict[str, int]:
        """``feature``: the hidden layer that was chosen."""
        return {"feature": self.sizes[self.feature_layer]}

    @torch.jit.ignore
    def constants(self, graph: AtomGraph) -> Constants:
        """The pooled features while the backbone is frozen, else what it keeps itself."""
        if not self.backbone.frozen:
            return self.backbone.constants(graph)
        with torch.no_grad():
            pooled = pool(self.backbone(graph), graph, self.pooling)
        key = f"{self.pooling} of {self.backbone.fingerprint()}"
        return Constants(per_structure={POOLED: pooled}, key=key)

    @torch.jit.ignore
    def keeps_structures(self) -> bool:
        """While the backbone is frozen."""
        return bool(self.backbone.frozen)

    @torch.jit.ignore
    def is_head(self, parameter: str) -> bool:
        """Everything but the backbone."""
        return not parameter.startswith("backbone.")

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        """New targets, and those with other classes, get fresh last layers."""
        for name in list(self.heads):
            if name not in dataset_info.targets:
                del self.heads[name]
        self._add_heads(dataset_info)
        example = next(self.layers.parameters())
        self.heads.to(example.device, example.dtype)

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        """Elements that the backbone knows are known: everything is taken over."""
        growth.take_over(self, trained)

    @torch.jit.ignore
    def _add_heads(self, dataset_info: DatasetInfo) -> None:
        if not dataset_info.targets:
            raise TargetError(
                "the classifier predicts classes, with a network of its own: leave out 'type' (unless "
                "it is a kind of classes) and 'head' of the targets, and set "
                "architecture.model.hidden_sizes"
            )
        for name, target in dataset_info.targets.items():
            _check(target, self.pooling)
            known = (
                [p.shape[0] for p in self.heads[name].parameters()] if name in self.heads else []
            )
            if known != [target.width]:
                self.heads[name] = nn.Linear(self.sizes[-1], target.width, bias=False)


def _check(target: TargetInfo, pooling: str) -> None:
    """TargetError for what the classifier cannot predict."""
    if target.per_atom:
        raise TargetError(
            f"target '{target.name}' belongs to atoms, and the classifier predicts classes of "
            "structures (sample_kind: system); train the architecture of your checkpoint on it"
        )
    if target.pooling not in ("mean", pooling):
        raise TargetError(
            f"target '{target.name}': pooling '{target.pooling}' is said for the classifier as a "
            "whole; set architecture.model.pooling"
        )
