"""Starting from somebody's weights: which are taken over, which are trained, how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import Parameter

from atomtrain.model.backbone import waiting_parameters

if TYPE_CHECKING:
    from atomtrain.model.base import Model
    from atomtrain.options import TrainerHypers


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
