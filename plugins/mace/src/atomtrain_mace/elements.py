"""New elements for a trained MACE: where weights by element are, and how large."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from atomtrain.model import Growth
from atomtrain_mace.blocks import o3


@torch.no_grad()
def grow(grown: nn.Module, trained: nn.Module, growth: Growth) -> None:
    """Copy the weights; the rest of ``grown`` is as it was built.

    e3nn divides sums over the elements by the root of their number, though one of them is what an atom has: weights grow
    by the root of how many more there are, so that known elements give what they gave.
    """
    few, many = len(growth.before), len(growth.after)
    axes: dict[tuple[int, int], Tensor] = {}
    by_element: list[str] = []
    theirs = dict(trained.named_modules())
    for name, module in grown.named_modules():
        if isinstance(module, o3.FullyConnectedTensorProduct) and module.irreps_in2.dim == many:
            old: Any = theirs[name]
            axes[old.weight.numel(), module.weight.numel()] = _places(module, growth)
            by_element.append(name)
        elif name.endswith("node_embedding.linear") or name.endswith(("source_embedding", "target_embedding")):
            by_element.append(name)
    growth.take_over(grown, trained, axes)
    for name in by_element:
        module = grown.get_submodule(name)
        weight: Tensor = module.weight  # type: ignore[assignment]
        old_weight: Tensor = theirs[name].weight  # type: ignore[assignment]
        places = axes.get((old_weight.numel(), weight.numel()))
        if places is None:
            n = weight.numel() // many
            places = (growth.places.unsqueeze(1) * n + torch.arange(n)).flatten()
        weight[places] = old_weight * (many / few) ** 0.5


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
