"""Errors and predictions of a predictor on a store, in physical units: the final evaluation of a training."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atomtrain.data import (
    Batch,
    BatchSource,
    Limits,
    Noise,
    Structures,
    StructureStore,
    epoch_batches,
)
from atomtrain.model.predictor import Predictor
from atomtrain.options import BaseTrainerHypers
from atomtrain.sections.names import symbols
from atomtrain.targets import DatasetInfo, TargetInfo, split_key
from atomtrain.tasks import task_of
from atomtrain.training.metrics import (
    ErrorSums,
    as_counted,
    block_columns,
    label_keys,
    label_variances,
)
from atomtrain.training.predict import add_errors, normalised_store, physical_factor, predict
from atomtrain.training.run import TrainingRun


def errors_on(
    predictor: Predictor, store: Structures, run: TrainingRun, samples: Samples | None = None
) -> tuple[ErrorSums, dict[str, ErrorSums]]:
    """Metrics of every label the store has (keys as in :mod:`.metrics`), of all and of groups.

    The ``run`` says where, in which precision and how many at once, which targets count as totals, whether
    blocks are wanted, and which groups: elements by symbol, files by name. Its seed fixes the noise of
    denoising targets, what it has kept of whole structures is used again. Classifications are added to
    ``samples`` one by one.
    """
    hypers, totals = run.hypers, run.hypers.per_structure_targets
    labelled = {n: t for n, t in predictor.dataset_info.targets.items() if n in store.sample.labels}
    info = replace(predictor.dataset_info, targets=labelled)  # a head that is kept has no data
    also = [name for name in predictor.model.structure_outputs() if samples is not None]
    blocks = block_columns(info) if hypers.log_separate_blocks else {}
    variances = label_variances(store.sample, info, totals)
    sums = ErrorSums(label_keys(info), run.device, blocks, info, variances)
    groups: dict[str, ErrorSums] = {}
    for piece in _pieces(store):
        members = _groups(piece, hypers)
        for source, batch, predictions in _predicted(predictor, piece, run, also):
            outputs = {name: predictions.pop(name).detach() for name in also if name in predictions}
            add_errors(sums, predictor, predictions, batch, totals)
            if samples is not None:
                samples.add(predictor, predictions, outputs, batch)
            for name, member in members.items():
                group = groups.setdefault(name, ErrorSums(label_keys(info), run.device, {}, info))
                part = _of_group(batch, member, source, piece)
                add_errors(group, predictor, predictions, part, totals)
    return sums, groups


@dataclass(frozen=True)
class Compared:
    """Predictions beside the labels of one key, ``[n_samples, width]`` float64 each, as errors are counted.

    So energies are per atom (unless they are trained as totals) and the strain derivative is stress; of classes there
    are probabilities. Both are NaN where there is no label.
    """

    predictions: Tensor
    labels: Tensor

    @classmethod
    def of(
        cls, predictions: Tensor, labels: Tensor, mask: Tensor | None, info: TargetInfo
    ) -> Compared:
        """Of what is finished and counted; ``info`` is that of the key's target."""
        task = task_of(info.kind)
        if task.classification:
            found, known = (task.class_probabilities(v, info) for v in (predictions, labels))
            if found is not None and known is not None:
                predictions, labels = found, known
                mask = None if mask is None else mask.any(1, keepdim=True)
        if mask is not None:
            predictions, labels = (torch.where(mask, v, torch.nan) for v in (predictions, labels))
        return cls(predictions.to(torch.float64), labels.to(torch.float64))


def compared(predictor: Predictor, store: StructureStore, run: TrainingRun) -> dict[str, Compared]:
    """Predictions of every label that the structures have, beside the labels, by label key.

    The ``run`` says what it says to :func:`errors_on`. Of denoising, labels are the noise.
    """
    info, totals = predictor.dataset_info, run.hypers.per_structure_targets
    found: dict[str, Compared] = {}
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for _, batch, predictions in _predicted(predictor, store, run):
        atoms = store.atom_indices(batch.structures)
        for key, prediction in predictions.items():
            label = store.labels[key]
            target, of_task, counted = _way(info, key, totals)
            values = prediction.detach()
            factor: Tensor | float = 1.0
            if of_task:
                values = predictor.finished(key, values)
            if not of_task or target.layout != "scalar":
                factor = physical_factor(predictor, batch, key, counted)
            if key not in parts:
                parts[key] = (torch.zeros_like(label.values), torch.zeros_like(label.values))
            rows = atoms if label.per_atom else batch.structures
            for part, new in zip(parts[key], (values, batch.labels[key]), strict=True):
                part[rows] = (new * factor).to("cpu", torch.float64)
    for key, (values, labels) in parts.items():
        target, _, counted = _way(info, key, totals)
        label = store.labels[key]
        if task_of(target.kind).scaled:
            # trained is what composition and baseline leave
            whole = as_counted(label.values, store, target, split_key(key)[1], counted)
            values, labels = whole + (values - labels), whole
        found[key] = Compared.of(values, labels, label.mask, target)
    return found


def _way(
    info: DatasetInfo, key: str, totals: Collection[str]
) -> tuple[TargetInfo, bool, Collection[str]]:
    """The target of a label, whether its task has metrics of its own, and which targets count as totals then."""
    name, gradient = split_key(key)
    target = info.targets[name]
    of_task = not gradient and task_of(target.kind).metric_size(target) > 0
    return target, of_task, () if of_task else totals


def _predicted(
    predictor: Predictor, store: StructureStore, run: TrainingRun, also: Collection[str] = ()
) -> Iterator[tuple[BatchSource, Batch, dict[str, Tensor]]]:
    """The store's batches with what is predicted for them (:func:`.predict.predict`)."""
    predictor = predictor.to(device=run.device, dtype=run.dtype)
    predictor.eval()
    source = _source(predictor, store, run)
    limits = Limits(max_atoms=run.hypers.max_atoms_per_batch, skip_large=False)
    order = epoch_batches(store.n_atoms, run.hypers.batch_size, limits=limits)
    for batch in source.epoch(order):
        yield source, batch, predict(predictor, batch, create_graph=False, also=also)


def _pieces(store: Structures) -> Iterator[StructureStore]:
    """The structures as they fit into memory."""
    if isinstance(store, StructureStore):
        yield store
        return
    for part in torch.arange(len(store)).split(store.blocks.window):
        yield store.select(part)


def _source(predictor: Predictor, store: StructureStore, run: TrainingRun) -> BatchSource:
    """Batches in which pair lists are made as they come, but what is kept of structures is used."""
    of_structures = predictor.model.keeps_structures()
    return BatchSource(
        normalised_store(store, predictor),
        cutoff=predictor.model.cutoff,
        dtype=run.dtype,
        constants=predictor.model.constants if of_structures else None,
        device=run.device,
        noise=Noise.of(predictor.dataset_info, run.seed, fixed=True),
        of_structures=of_structures,
        kept=run.kept,
    )


def _of_group(
    batch: Batch, member: tuple[Tensor, Tensor], source: BatchSource, store: StructureStore
) -> Batch:
    """The batch with all labels masked but those of a group's atoms and structures."""
    of_atoms, of_structures = member
    atoms = store.atom_indices(batch.structures)
    masks: dict[str, Tensor | None] = {}
    for key, label in batch.labels.items():
        per_atom = source.labels[key].per_atom
        chosen = of_atoms[atoms] if per_atom else of_structures[batch.structures]
        mask = chosen.to(label.device)[:, None].expand_as(label)
        known = batch.masks.get(key)
        masks[key] = mask if known is None else mask & known
    return replace(batch, masks=masks)


def _groups(store: StructureStore, hypers: BaseTrainerHypers) -> dict[str, tuple[Tensor, Tensor]]:
    """Atoms ``[n_atoms]`` and structures ``[n]`` (bool) of each group errors are wanted of."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    if hypers.log_per_element:
        nowhere = torch.zeros(len(store), dtype=torch.bool)
        for number in store.types.unique().tolist():
            found[symbols([number])] = (store.types == number, nowhere)
    if hypers.log_per_dataset and store.origins is not None:
        for k, file in enumerate(store.files):
            structures = store.origins[:, 0] == k
            if bool(structures.any()):
                atoms = torch.repeat_interleave(structures, store.n_atoms)
                found[file] = (atoms, structures)
    return found


class Samples:
    """Labels and predictions of classifications, sample by sample, and features of structures.

    ``labels`` and ``probabilities`` are lists of ``[n_samples, n_classes]`` by target, NaN where there is
    no label; ``features`` are lists of
    ``[n_structures, width]`` by output.
    """

    def __init__(self) -> None:
        self.labels: dict[str, list[Tensor]] = {}
        self.probabilities: dict[str, list[Tensor]] = {}
        self.features: dict[str, list[Tensor]] = {}

    def add(
        self,
        predictor: Predictor,
        predictions: dict[str, Tensor],
        outputs: dict[str, Tensor],
        batch: Batch,
    ) -> None:
        """Take in one batch, predictions before the task finishes them."""
        for name, target in predictor.dataset_info.targets.items():
            task = task_of(target.kind)
            if not task.classification or name not in predictions:
                continue
            finished = predictor.finished(name, predictions[name].detach()).cpu()
            found = task.class_probabilities(finished, target)
            label = task.class_probabilities(batch.labels[name].cpu(), target)
            if found is None or label is None:
                continue
            mask = batch.masks.get(name)
            if mask is not None:
                label = torch.where(mask.cpu().any(1, keepdim=True), label, torch.nan)
            self.labels.setdefault(name, []).append(label)
            self.probabilities.setdefault(name, []).append(found)
        for name, values in outputs.items():
            self.features.setdefault(name, []).append(values.cpu())
