"""New elements for a trained MACE: where weights by element are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from atomtrain.model import Growth
from atomtrain_mace.blocks import o3


def grow(grown: nn.Module, trained: nn.Module, growth: Growth) -> None:
    """Copy the weights; those of new elements are as ``grown`` was built."""
    many = len(growth.after)
    axes: dict[tuple[int, int], Tensor] = {}
    theirs: dict[str, Any] = dict(trained.named_modules())
    for name, module in grown.named_modules():
        if isinstance(module, o3.FullyConnectedTensorProduct) and module.irreps_in2.dim == many:
            lengths = theirs[name].weight.numel(), module.weight.numel()
            axes[lengths] = _places(module, growth)
    growth.take_over(grown, trained, axes)


def _places(module: Any, growth: Growth) -> Tensor:
    """Where the weights ``[n_in, elements, n_out]`` of each path go."""
    many = len(growth.after)
    found, start = [], 0
    for path in module.instructions:
        n_in, _, n_out = path.path_shape
        rows = torch.arange(n_in * many * n_out).reshape(n_in, many, n_out) + start
        found.append(rows[:, growth.places].flatten())
        start += n_in * many * n_out
    return torch.cat(found)
