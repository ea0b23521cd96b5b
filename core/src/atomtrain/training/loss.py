"""Losses: how far predictions are from labels.

Every loss returns a numerator and a count instead of a mean, so that masked labels, batches of any
size and several processes all end in the same number: the sum of the numerators over the sum of the
counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atomtrain.errors import OptionsError
from atomtrain.targets import DatasetInfo

if TYPE_CHECKING:
    from atomtrain.options import LossSpec, TrainerHypers

Pointwise = Callable[[Tensor, Tensor], Tensor]
"""(prediction, label) -> loss of each entry, same shape"""


def pointwise(kind: str, delta: float) -> Pointwise:
    """The loss of one entry by its name in the options (``mse``, ``mae``, ``huber``)."""
    if kind == "mse":
        return lambda prediction, label: (prediction - label).square()
    if kind == "mae":
        return lambda prediction, label: (prediction - label).abs()
    if kind == "huber":
        return lambda prediction, label: torch.nn.functional.huber_loss(
            prediction, label, reduction="none", delta=delta
        )
    raise OptionsError(
        f"architecture.training.loss: there is no loss '{kind}'; choose one of mse, mae, huber"
    )


@dataclass(frozen=True)
class Term:
    """One summand of the loss: the label ``key``, its weight and its pointwise loss."""

    key: str
    weight: float
    mean: bool
    function: Pointwise
    per_structure: bool
    """the target enters as a total, not per atom (``per_structure_targets``)"""

    def __call__(
        self, prediction: Tensor, label: Tensor, mask: Tensor | None, n_atoms: Tensor
    ) -> tuple[Tensor, Tensor | int]:
        """(weighted numerator, count). ``n_atoms [n_structures]`` for totals of structures."""
        if self.per_structure:
            prediction, label = prediction * n_atoms[:, None], label * n_atoms[:, None]
        loss = self.function(prediction, label)
        count: Tensor | int = loss.numel()
        if mask is not None:
            loss, count = loss * mask, mask.sum()
        return self.weight * loss.sum(), count


def loss_terms(dataset_info: DatasetInfo, hypers: TrainerHypers) -> list[Term]:
    """The summands of the loss, in the order of the targets, gradients after their target."""
    terms = []

    def add(key: str, spec: LossSpec, per_structure: bool = False) -> None:
        if spec.weight != 0.0:
            terms.append(
                Term(
                    key,
                    spec.weight,
                    spec.reduction == "mean",
                    pointwise(spec.type.removeprefix("masked_"), spec.delta),
                    per_structure,
                )
            )

    for name, target in dataset_info.targets.items():
        spec = hypers.loss_for(target)
        whole = name in hypers.per_structure_targets
        add(name, spec, whole)
        for gradient in target.gradients:
            add(f"{name}:{gradient}", spec.gradients[gradient], whole and gradient == "strain")
    return terms
