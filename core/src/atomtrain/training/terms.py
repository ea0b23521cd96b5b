"""The summands of the loss: which loss each label gets, with which weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from atomtrain.data.store import Label
from atomtrain.losses import Loss
from atomtrain.options import LossSpec, TrainerHypers
from atomtrain.options.loss import LOSSES, loss_factory
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.tasks import task_of


@dataclass(frozen=True)
class Term:
    """One summand of the loss: the label ``key``, its weight and its loss."""

    key: str
    weight: float
    mean: bool
    function: Loss
    per_structure: bool
    """the target enters as a total, not per atom (``per_structure_targets``)"""

    def __call__(
        self, prediction: Tensor, label: Tensor, mask: Tensor | None, n_atoms: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        """(weighted numerator, count). ``n_atoms [n_structures]`` for totals of structures."""
        if self.per_structure:
            prediction, label = prediction * n_atoms[:, None], label * n_atoms[:, None]
        numerator, count = self.function(prediction, label, mask)
        return self.weight * numerator, count


def build_loss(spec: LossSpec, target: TargetInfo, label: Label | None) -> Loss:
    """The loss that the options name: the core's, as the target's task has it, or a package's."""
    if spec.type not in LOSSES:
        loss: Loss = loss_factory(spec.type)(**spec.arguments)
        return loss
    return task_of(target.kind).loss(spec.type, spec.arguments, target, label)


def loss_terms(
    dataset_info: DatasetInfo, hypers: TrainerHypers, labels: Mapping[str, Label] | None = None
) -> list[Term]:
    """The summands of the loss, in the order of the targets, gradients after their target.

    Classes may be weighted by how often they occur in the training set's ``labels``.
    """
    terms = []

    def add(key: str, spec: LossSpec, target: TargetInfo, per_structure: bool = False) -> None:
        if spec.weight != 0.0:
            loss = build_loss(spec, target, (labels or {}).get(key))
            terms.append(Term(key, spec.weight, spec.reduction == "mean", loss, per_structure))

    for name, target in dataset_info.targets.items():
        spec = hypers.loss_for(target)
        whole = name in hypers.per_structure_targets
        add(name, spec, target, whole)
        for gradient in target.gradients:
            in_total = whole and gradient == "strain"
            add(f"{name}:{gradient}", spec.gradients[gradient], target, in_total)
    return terms
