"""Taking the physics a model brings along (its baseline) out of the labels."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from atomtrain.data import BatchSource, Label, StructureStore, epoch_batches
from atomtrain.graph import n_structures, sum_over_structures
from atomtrain.model.base import Baseline
from atomtrain.model.gradients import forces_and_strain, with_leaves
from atomtrain.model.predictor import Predictor

_KNOWN: weakref.WeakKeyDictionary[StructureStore, tuple[Any, dict[str, Tensor]]] = (
    weakref.WeakKeyDictionary()
)


def without_baseline(store: StructureStore, predictor: Predictor) -> StructureStore:
    """The same structures with labels from which the baseline of the model is subtracted.

    Composition, scale and weights are all fitted to these. Energies, forces and strain derivatives
    in float64; ``store`` itself where the model has no baseline. Computed once for a store, and again only
    for a model with another baseline.
    """
    baseline = predictor.model.baseline
    if baseline is None:
        return store
    key = _identity(baseline, predictor)
    known = _KNOWN.get(store)
    if known is None or known[0] != key:
        known = _KNOWN[store] = (key, _energies_and_gradients(baseline, store, predictor))
    labels = dict(store.labels)
    for name, values in known[1].items():
        label = labels.get(name)
        if label is not None:
            left = label.values - values
            if label.mask is not None:
                left = torch.where(label.mask, left, 0.0)
            labels[name] = Label(left, label.per_atom, label.mask)
    return replace(store, labels=labels)


def _identity(baseline: Baseline, predictor: Predictor) -> Any:
    """What decides on a baseline's energies; copies of one have the same."""
    tensors = [*baseline.parameters(), *baseline.buffers()]
    numbers = [tensor.detach().cpu().numpy().tobytes() for tensor in tensors]
    kind = type(baseline).__module__, type(baseline).__qualname__
    return kind, baseline.cutoff, predictor.dataset_info.targets, numbers


def _energies_and_gradients(
    baseline: Baseline, store: StructureStore, predictor: Predictor
) -> dict[str, Tensor]:
    """What the baseline says of every label it knows, in physical units and float64."""
    info = predictor.dataset_info
    names = [name for name in info.targets if name in store.labels]
    bare, device = replace(store, labels={}), predictor.type_index.device
    source = BatchSource(bare, baseline.cutoff, torch.float64, device=device)
    parts: dict[str, list[Tensor]] = {}
    for batch in source.epoch(epoch_batches(store.n_atoms, batch_size=32)):
        graph = with_leaves(batch.graph)
        for name, atomic in baseline(graph, names).items():
            target = info.targets[name]
            energy = atomic.unsqueeze(1)
            if not target.per_atom:
                energy = sum_over_structures(energy, graph.structure, n_structures(graph))
            found = {name: energy}
            if target.gradients:
                forces, strain = forces_and_strain(
                    atomic, graph, strain=True, create_graph=False, retain_graph=True
                )
                assert strain is not None
                found |= {f"{name}:forces": forces, f"{name}:strain": strain}
            for key, values in found.items():
                parts.setdefault(key, []).append(values.detach().cpu())
    return {key: torch.cat(values) for key, values in parts.items()}
