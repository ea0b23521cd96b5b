"""Errors of a predictor on a store, in physical units: the final evaluation of a training."""

from __future__ import annotations

import torch

from atomtrain.data import BatchSource, StructureStore, epoch_batches
from atomtrain.model.predictor import Predictor
from atomtrain.training.metrics import ErrorSums, label_keys
from atomtrain.training.observers import Errors
from atomtrain.training.predict import add_errors, normalised_store, predict


def errors_on(
    predictor: Predictor,
    store: StructureStore,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
) -> Errors:
    """RMSE and MAE of every label the store has (keys as in :mod:`.metrics`)."""
    predictor = predictor.to(device=device, dtype=dtype)
    predictor.eval()
    source = BatchSource(
        normalised_store(store, predictor),
        cutoff=predictor.model.cutoff,
        dtype=dtype,
        constants=None,
        device=device,
        memory_budget=0,
        num_workers=0,
    )
    sums = ErrorSums(label_keys(predictor.dataset_info), device)
    order = epoch_batches(store.n_atoms, batch_size=batch_size, seed=0, epoch=0, shuffle=False)
    for batch in source.epoch(order):
        predictions = predict(predictor, batch, create_graph=False)
        add_errors(sums, predictor, predictions, batch)
    return sums.results()
