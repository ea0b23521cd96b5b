"""From a batch to dimensionless predictions, in the form the stored labels have."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atomtrain.data.noise import input_of
from atomtrain.data.store import Label, StructureStore
from atomtrain.graph import n_structures, sum_over_structures, type_table, volumes, without_mean
from atomtrain.model.affine import Samples, normalise
from atomtrain.model.gradients import forces_and_strain, with_leaves
from atomtrain.model.predictor import Predictor
from atomtrain.targets import split_key
from atomtrain.tasks import task_of
from atomtrain.training.metrics import ErrorSums
from atomtrain.training.physics import without_baseline

if TYPE_CHECKING:
    from atomtrain.data import Batch
    from atomtrain.targets import TargetInfo


def samples_of(store: StructureStore, target: TargetInfo, types: tuple[int, ...]) -> Samples:
    """The labels of one target as composition and scale are fitted to them."""
    label = store.labels[target.name]
    index = type_table(types)[store.types]
    return Samples(label.values, label.there, index, store.structure, len(types), len(store))


def normalised_store(store: StructureStore, predictor: Predictor) -> StructureStore:
    """The same structures with the labels a network is trained on.

    First the model's baseline is subtracted. Values: residual over the reference scale, per
    atom where the target is a sum; forces over the reference; strain derivative over the reference,
    per atom.
    """
    info = predictor.dataset_info
    store = without_baseline(store, predictor)
    labels: dict[str, Label] = {}
    n_atoms = store.n_atoms.to(torch.float64)
    for name, target in info.targets.items():
        if name not in store.labels:
            continue
        if not task_of(target.kind).scaled:
            labels[name] = store.labels[name]
            continue
        affine = predictor.affine_of(name)
        label = store.labels[name]
        values = normalise(affine, target, samples_of(store, target, info.atomic_types))
        labels[name] = Label(values, label.per_atom, label.mask)
        reference = float(affine.reference[0])
        for gradient in target.gradients:
            key = f"{name}:{gradient}"
            label = store.labels[key]
            values = label.values / reference
            if gradient == "strain":
                values = values / n_atoms[:, None]
            labels[key] = Label(values, label.per_atom, label.mask)
    return replace(store, labels=labels)


def predict(
    predictor: Predictor, batch: Batch, *, create_graph: bool, also: Collection[str] = ()
) -> dict[str, Tensor]:
    """Predictions of every label in the batch, shaped and scaled like the stored labels.

    ``create_graph`` keeps the gradients differentiable with respect to the weights, for training.
    ``also`` names outputs of the model that are no targets and are wanted as they are.
    """
    targets = {n: t for n, t in predictor.dataset_info.targets.items() if n in batch.labels}
    differentiated = [n for n, t in targets.items() if t.gradients]
    graph = with_leaves(batch.graph) if differentiated else batch.graph
    outputs: dict[str, list[Tensor]] = {}
    inputs = {n: input_of(t) for n, t in targets.items()}
    for seen in dict.fromkeys(inputs.values()):  # one pass for each input
        names = [n for n, of in inputs.items() if of == seen]
        names += also if not seen else ()
        outputs.update(predictor.model(batch.noisy[seen] if seen else graph, names))

    n = n_structures(graph)
    type_index = None
    inverse_n_atoms = batch.n_atoms.reciprocal().to(graph.positions.dtype).unsqueeze(1)
    predictions: dict[str, Tensor] = {}
    for name, target in targets.items():
        affine = predictor.affine_of(name)
        blocks = outputs[name]
        if affine.scale.shape[1] > 1:
            relative = (affine.scale / affine.reference[:, None]).to(blocks[0].dtype)
            if target.pooled:
                relative = relative[:1]  # one scale, whatever the elements
            else:
                if type_index is None:
                    type_index = predictor.type_index.index_select(0, graph.types)
                relative = relative.index_select(0, type_index)
            blocks = [
                block * relative[:, start:stop].reshape(-1, *[1] * (block.dim() - 2), stop - start)
                for block, start, stop in zip(
                    blocks, affine.offsets, affine.offsets[1:], strict=False
                )
            ]
        rows = [block.reshape(block.shape[0], -1) for block in blocks]
        row = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
        if target.per_atom or target.pooled:
            predictions[name] = without_mean(row, graph) if target.zero_mean else row
            continue
        predictions[name] = sum_over_structures(row, graph.structure, n) * inverse_n_atoms
        if target.gradients:
            forces, strain = forces_and_strain(
                row,
                graph,
                strain="strain" in target.gradients,
                create_graph=create_graph,
                retain_graph=name != differentiated[-1],
            )
            if "forces" in target.gradients:
                predictions[f"{name}:forces"] = forces
            if strain is not None:
                predictions[f"{name}:strain"] = strain * inverse_n_atoms
    predictions.update({name: outputs[name][0] for name in also if name in outputs})
    return predictions


def add_errors(
    sums: ErrorSums,
    predictor: Predictor,
    predictions: dict[str, Tensor],
    batch: Batch,
    totals: Collection[str] = (),
) -> None:
    """Add the errors of one batch, in physical units; those of ``totals`` not per atom."""
    for key, prediction in predictions.items():
        target = predictor.dataset_info.targets.get(key)
        if target is not None and key in sums.tasks:
            physical = predictor.finished(key, prediction.detach())
            factor = 1.0 if target.layout == "scalar" else physical_factor(predictor, batch, key)
            mask = batch.masks.get(key)
            sums.add_samples(key, physical * factor, batch.labels[key] * factor, mask)
            continue
        error = prediction.detach() - batch.labels[key]
        factor = physical_factor(predictor, batch, key, totals)
        sums.add(key, error * factor, batch.masks.get(key))


def physical_factor(
    predictor: Predictor, batch: Batch, key: str, totals: Collection[str] = ()
) -> Tensor:
    """What a dimensionless error of label ``key`` is multiplied by to be one in physical units.

    Values stay per atom where they are sums, unless they are among ``totals``; the strain derivative,
    and what is trained as volume times stress, become stress (0 where a structure has no volume).
    """
    name, gradient = split_key(key)
    affine = predictor.affine_of(name)
    target = predictor.dataset_info.targets[name]
    if target.per_atom:
        index = predictor.type_index.index_select(0, batch.graph.types)
        return affine.reference.index_select(0, index).unsqueeze(1)
    per = target.error_per(gradient, totals)
    if per == "volume":
        volume = volumes(batch.graph.cells)
        per_volume = torch.where(volume > 0, batch.n_atoms / volume, torch.zeros_like(volume))
        return (affine.reference[0] * per_volume).unsqueeze(1)
    if gradient or target.pooled or per == "atom":
        return affine.reference[0]
    return affine.reference[0] * batch.n_atoms.to(torch.float64).unsqueeze(1)
