"""Starting from somebody's weights: which are taken over, which are trained, how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import Parameter

from atomtrain.model.backbone import waiting_parameters

if TYPE_CHECKING:
    from atomtrain.model.base import Model
    from atomtrain.options import TrainerHypers


@dataclass
class Began:
    """What a fine-tuning began with, as its checkpoints have it; empty for other trainings.

    ``new`` are the entries of weights that no training has seen (by name of the parameter a mask as large as it).
    ``errors`` are those before it, by ``old`` and ``new`` data.
    """

    new: dict[str, Tensor] = field(default_factory=dict)
    errors: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As a checkpoint has it."""
        return {"new": self.new, "errors": self.errors}

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> Began:
        """That of the run that wrote the checkpoint."""
        return cls(**(checkpoint.get("began") or {}))


@dataclass(frozen=True)
class Replayed:
    """Which training structures are old (``[n_train]`` bool), their part of a batch, and their weight in the loss."""

    old: Tensor
    share: float
    weight: float


def parameter_groups(model: Model, hypers: TrainerHypers) -> list[dict[str, Any]]:
    """The optimiser's groups: ``encoder`` and ``heads``, each with its learning rate.

    Without fine-tuning both have the same rate. ``method: heads`` leaves the encoder out.
    """
    finetune = hypers.finetune
    waiting = waiting_parameters(model)
    encoder: list[Parameter] = []
    heads: list[Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and id(parameter) not in waiting:
            continue  # frozen by the architecture for good: a backbone
        (heads if model.is_head(name) else encoder).append(parameter)
    groups: list[dict[str, Any]] = []
    if encoder and not (finetune is not None and finetune.method == "heads"):
        rate = hypers.learning_rate
        if finetune is not None and finetune.encoder_learning_rate is not None:
            rate = finetune.encoder_learning_rate
        groups.append({"params": encoder, "lr": rate, "name": "encoder"})
    elif encoder:
        for parameter in encoder:
            parameter.requires_grad_(False)
    if heads:
        groups.append({"params": heads, "lr": hypers.learning_rate, "name": "heads"})
    return groups
