"""Errors of a predictor on a store, in physical units: the final evaluation of a training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from ase.data import chemical_symbols
from torch import Tensor

from atomtrain.data import BatchSource, Kept, Noise, StructureStore, epoch_batches
from atomtrain.model.predictor import Predictor
from atomtrain.tasks import task_of
from atomtrain.training.metrics import ErrorSums, block_columns, label_keys, label_variances
from atomtrain.training.predict import add_errors, normalised_store, predict

if TYPE_CHECKING:
    from atomtrain.data import Batch
    from atomtrain.options import TrainerHypers


def errors_on(
    predictor: Predictor,
    store: StructureStore,
    device: torch.device,
    dtype: torch.dtype,
    hypers: TrainerHypers,
    seed: int,
    *,
    kept: Kept | None = None,
    samples: Samples | None = None,
) -> tuple[ErrorSums, dict[str, ErrorSums]]:
    """Metrics of every label the store has (keys as in :mod:`.metrics`), of all and of groups.

    ``hypers`` say how large batches are, which targets count as totals, whether blocks are wanted,
    and which groups: elements by symbol, files by name. The ``seed`` fixes the noise of denoising
    targets. What is ``kept`` of whole structures is used again. Classifications are added to
    ``samples`` one by one.
    """
    predictor = predictor.to(device=device, dtype=dtype)
    predictor.eval()
    info = predictor.dataset_info
    source = BatchSource(
        normalised_store(store, predictor),
        cutoff=predictor.model.cutoff,
        dtype=dtype,
        constants=predictor.model.constants if predictor.model.keeps_structures() else None,
        device=device,
        memory_budget=0,
        num_workers=0,
        noise=Noise.of(info, seed, fixed=True),
        of_structures=predictor.model.keeps_structures(),
        kept=kept,
    )
    also = [name for name in predictor.model.structure_outputs() if samples is not None]
    totals = hypers.per_structure_targets
    blocks = block_columns(info) if hypers.log_separate_blocks else {}
    variances = label_variances(store, info, totals)
    sums = ErrorSums(label_keys(info), device, blocks, info, variances)
    members = _groups(store, hypers)
    groups = {name: ErrorSums(label_keys(info), device, {}, info) for name in members}
    order = epoch_batches(
        store.n_atoms,
        batch_size=hypers.batch_size,
        seed=0,
        epoch=0,
        shuffle=False,
        skip_large=False,
        max_atoms=hypers.max_atoms_per_batch,
    )
    for batch in source.epoch(order):
        predictions = predict(predictor, batch, create_graph=False, also=also)
        outputs = {name: predictions.pop(name).detach() for name in also if name in predictions}
        add_errors(sums, predictor, predictions, batch, totals)
        if samples is not None:
            samples.add(predictor, predictions, outputs, batch)
        atoms = store.atom_indices(batch.structures)
        for name, (of_atoms, of_structures) in members.items():
            masks: dict[str, Tensor | None] = {}
            for key, label in batch.labels.items():
                per_atom = source.labels[key][2]
                chosen = of_atoms[atoms] if per_atom else of_structures[batch.structures]
                mask = chosen.to(device)[:, None].expand_as(label)
                known = batch.masks.get(key)
                masks[key] = mask if known is None else mask & known
            add_errors(groups[name], predictor, predictions, replace(batch, masks=masks), totals)
    return sums, groups


def _groups(store: StructureStore, hypers: TrainerHypers) -> dict[str, tuple[Tensor, Tensor]]:
    """Atoms ``[n_atoms]`` and structures ``[n]`` (bool) of each group errors are wanted of."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    if hypers.log_per_element:
        nowhere = torch.zeros(len(store), dtype=torch.bool)
        for number in store.types.unique().tolist():
            found[chemical_symbols[number]] = (store.types == number, nowhere)
    if hypers.log_per_dataset and store.origins is not None:
        for k, file in enumerate(store.files):
            structures = store.origins[:, 0] == k
            if bool(structures.any()):
                atoms = torch.repeat_interleave(structures, store.n_atoms)
                found[file] = (atoms, structures)
    return found


class Samples:
    """Labels and predictions of classifications, sample by sample, and features of structures.

    ``labels`` and ``probabilities`` are lists of ``[n_samples, n_classes]`` by target (a yes-or-no
    target has two classes here), NaN where there is no label; ``features`` are lists of
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
            if not task_of(target.kind).classification or name not in predictions:
                continue
            found = predictor.finished(name, predictions[name].detach()).cpu()
            label, mask = batch.labels[name].cpu(), batch.masks.get(name)
            if target.kind == "binary":
                if target.width > 1:
                    continue
                found, label = torch.cat([1 - found, found], 1), torch.cat([1 - label, label], 1)
            missing = torch.zeros(0) if mask is None else ~mask.cpu().any(1, keepdim=True)
            if mask is not None:
                label = torch.where(missing, torch.nan, label)
            self.labels.setdefault(name, []).append(label)
            self.probabilities.setdefault(name, []).append(found)
        for name, values in outputs.items():
            self.features.setdefault(name, []).append(values.cpu())
