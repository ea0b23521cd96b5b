"""Taking the physics a model brings along (its baseline) out of the labels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from atomtrain.data import BatchSource, Label, StructureStore, epoch_batches
from atomtrain.graph import n_structures, sum_over_structures
from atomtrain.model.gradients import forces_and_strain, with_leaves
from atomtrain.model.predictor import Predictor


def without_baseline(store: StructureStore, predictor: Predictor) -> StructureStore:
    """The same structures with labels from which the baseline of the model is subtracted.

    Composition, scale and weights are all fitted to these. Energies, forces and strain derivatives
    in float64; ``store`` itself where the model has no baseline.
    """
    baseline = predictor.model.baseline
    if baseline is None:
        return store
    info = predictor.dataset_info
    names = [name for name in info.targets if name in store.labels]
    source = BatchSource(
        replace(store, labels={}, extra={}),
        cutoff=baseline.cutoff,
        dtype=torch.float64,
        constants=None,
        device=predictor.type_index.device,
        memory_budget=0,
        num_workers=0,
    )
    parts: dict[str, list[Tensor]] = {}
    for batch in source.epoch(
        epoch_batches(store.n_atoms, batch_size=32, seed=0, epoch=0, shuffle=False)
    ):
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
    labels = dict(store.labels)
    for key, values in parts.items():
        if key in labels:
            label = labels[key]
            left = label.values - torch.cat(values)
            if label.mask is not None:
                left = torch.where(label.mask, left, 0.0)
            labels[key] = Label(left, label.per_atom, label.mask)
    return replace(store, labels=labels)
