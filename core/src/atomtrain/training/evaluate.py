"""Errors of a predictor on a store, in physical units: the final evaluation of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from atomtrain.data import BatchSource, Noise, StructureStore, epoch_batches
from atomtrain.model.predictor import Predictor
from atomtrain.training.metrics import ErrorSums, block_columns, label_keys, label_variances
from atomtrain.training.predict import add_errors, normalised_store, predict

if TYPE_CHECKING:
    from atomtrain.options import TrainerHypers


def errors_on(
    predictor: Predictor,
    store: StructureStore,
    device: torch.device,
    dtype: torch.dtype,
    hypers: TrainerHypers,
    seed: int,
) -> ErrorSums:
    """Metrics of every label the store has (keys as in :mod:`.metrics`).

    ``hypers`` say how large batches are, which targets count as totals, and whether blocks are
    wanted; the ``seed`` fixes the noise of denoising targets.
    """
    predictor = predictor.to(device=device, dtype=dtype)
    predictor.eval()
    info = predictor.dataset_info
    source = BatchSource(
        normalised_store(store, predictor),
        cutoff=predictor.model.cutoff,
        dtype=dtype,
        constants=None,
        device=device,
        memory_budget=0,
        num_workers=0,
        noise=Noise.of(info, seed, fixed=True),
    )
    sums = ErrorSums(
        label_keys(info),
        device,
        block_columns(info) if hypers.log_separate_blocks else {},
        info,
        label_variances(store, info, hypers.per_structure_targets),
    )
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
        predictions = predict(predictor, batch, create_graph=False)
        add_errors(sums, predictor, predictions, batch, hypers.per_structure_targets)
    return sums
