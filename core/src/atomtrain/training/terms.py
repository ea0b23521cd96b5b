"""The loss: its summands, which loss each label gets with which weight, and their sum over a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atomtrain.data.store import Label
from atomtrain.losses import Loss
from atomtrain.options import BaseTrainerHypers, LossSpec
from atomtrain.options.loss import LOSSES, loss_factory
from atomtrain.targets import DatasetInfo, TargetInfo, split_key
from atomtrain.tasks import task_of
from atomtrain.training.predict import predict

if TYPE_CHECKING:
    from atomtrain.data import Batch
    from atomtrain.training.finetune import Replayed
    from atomtrain.training.run import TrainingRun


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
    dataset_info: DatasetInfo, hypers: BaseTrainerHypers, labels: Mapping[str, Label] | None = None
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


class Objective:
    """The loss of a batch, and the predictions it was made of; ``terms`` are its summands."""

    def __init__(self, run: TrainingRun) -> None:
        self.terms = loss_terms(run.dataset_info, run.hypers, run.train.sample.labels)
        self._predictor, self._processes = run.predictor, run.processes
        self._device, self._dtype = run.device, run.dtype

    def __call__(
        self,
        batch: Batch | None,
        *,
        create_graph: bool,
        of: int = 1,
        replayed: Replayed | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's part of the batch's loss; the parts of all processes add up to it.

        ``batch`` is this process's share, None where it has none. All processes call this at once. It may be one
        ``of`` several batches whose losses are to add up to that of all their structures. Those that are
        ``replayed`` (``batch`` being of training) count as much as that says.
        """
        predictions: dict[str, Tensor] = {}
        if batch is not None:
            predictions = predict(self._predictor, batch, create_graph=create_graph)
        numerators: list[Tensor | None] = []
        counts: list[Tensor | float] = []
        for term in self.terms:
            if batch is None or term.key not in predictions:
                numerators.append(None)
                counts.append(0.0)
                continue
            numerator, count = weighted(term, predictions[term.key], batch, replayed)
            numerators.append(numerator)
            counts.append(count)
        if self._processes.size > 1:
            shared = torch.tensor([float(c) for c in counts], dtype=torch.float64)
            self._processes.sum_(shared)
            counts = shared.tolist()
        loss = torch.zeros((), dtype=self._dtype, device=self._device)
        for term, part, number in zip(self.terms, numerators, counts, strict=True):
            if part is None:
                continue
            if term.mean:
                number = number.clamp(min=1) if isinstance(number, Tensor) else max(number, 1)
                part = part / (number * of)
            loss = loss + part
        return loss, predictions

    def by_target(self, predictions: Mapping[str, Tensor], batch: Batch) -> dict[str, float]:
        """What each target, its gradients included, adds to the loss of a batch that no other process shares."""
        found: dict[str, float] = {}
        for term in self.terms:
            if term.key not in predictions:
                continue
            mask = batch.masks.get(term.key)
            part, count = term(
                predictions[term.key].detach(), batch.labels[term.key], mask, batch.n_atoms
            )
            value = float(part) / max(float(count), 1.0) if term.mean else float(part)
            target = split_key(term.key)[0]
            found[target] = found.get(target, 0.0) + value
        return found


def weighted(
    term: Term, prediction: Tensor, batch: Batch, replayed: Replayed | None
) -> tuple[Tensor, Tensor | float]:
    """A summand of the loss of a batch, and its count, old structures by their weight."""
    label, mask = batch.labels[term.key], batch.masks.get(term.key)
    if replayed is None or replayed.weight == 1.0:
        return term(prediction, label, mask, batch.n_atoms)
    old = replayed.old[batch.structures].to(label.device)
    if len(label) != len(old):  # labels of atoms
        old = old[batch.graph.structure]
    there = torch.ones_like(label, dtype=torch.bool) if mask is None else mask
    new, again = (
        term(prediction, label, there & chosen[:, None], batch.n_atoms) for chosen in (~old, old)
    )
    return new[0] + replayed.weight * again[0], new[1] + again[1]
