"""The core's engine, with the optimiser that MACE is trained with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from atomtrain.training.engine import Engine
from atomtrain_mace.hypers import TrainerHypers


class Trainer(Engine):
    """Adam by the largest gradients (amsgrad), with weight decay for some weights alone."""

    def build_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """See :meth:`Engine.build_optimizer`."""
        hypers = self.hypers
        assert isinstance(hypers, TrainerHypers)
        if hypers.optimizer == "muon":
            return super().build_optimizer(groups)
        decaying = decayed(self.model)
        split = [
            {**group, "params": chosen, "weight_decay": hypers.weight_decay if decays else 0.0}
            for group in groups
            for decays in (True, False)
            if (chosen := [p for p in group["params"] if (id(p) in decaying) == decays])
        ]
        kind = torch.optim.AdamW if hypers.optimizer == "adamw" else torch.optim.Adam
        return kind(split, lr=hypers.learning_rate, amsgrad=hypers.amsgrad, fused=True)

    def reset_optimizer(self) -> None:
        """See :meth:`Engine.reset_optimizer`; amsgrad that comes later begins with the squares there are."""
        super().reset_optimizer()
        if any(group.get("amsgrad") for group in self.optimizer.param_groups):
            for state in self.optimizer.state.values():
                state.setdefault("max_exp_avg_sq", state["exp_avg_sq"].clone())


def decayed(model: nn.Module) -> set[int]:
    """Parameters that mace-torch has decay, by identity: of products, and linear layers after sums of neighbours."""
    found = set()
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if "products" in parts or ("interactions" in parts and name.endswith("linear.weight")):
            found.add(id(parameter))
    return found
