"""Fitting the composition and scale of every target, or taking them from options or checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from atomtrain.data import BatchSource, StructureStore, epoch_batches
from atomtrain.errors import OptionsError
from atomtrain.model.affine import Affine, fit_composition, fit_constant, fit_scale
from atomtrain.model.predictor import Predictor
from atomtrain.options import TrainerHypers
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.tasks import task_of
from atomtrain.training.checkpoint import Checkpoints
from atomtrain.training.physics import without_baseline
from atomtrain.training.predict import normalised_store, predict, samples_of


def fit_affines(
    predictor: Predictor,
    store: StructureStore,
    hypers: TrainerHypers,
    targets: list[str],
    checkpoints: Checkpoints,
) -> None:
    """Fit (or take from the options, or from a checkpoint) composition and scale of these targets."""
    info = predictor.dataset_info
    store = without_baseline(store, predictor)
    for name in targets:
        target = info.targets[name]
        affine = predictor.affine_of(name)
        if not task_of(target.kind).scaled:
            fixed_scale = task_of(target.kind).fixed_scale(target)
            affine.scale.fill_(fixed_scale)
            affine.reference.fill_(fixed_scale)
            continue
        samples = samples_of(store, target, info.atomic_types)
        given, weights = hypers.atomic_baseline, hypers.fixed_scaling_weights
        if target.pooled:
            number = given.get(name) if isinstance(given, dict) else None
            fit_constant(affine, samples, number if isinstance(number, float) else None)
        elif isinstance(given, str):
            affine.shift.copy_(_affine_from(given, target, info, checkpoints).shift)
        else:
            fit_composition(affine, target, samples, _by_index(given.get(name), info.atomic_types))
        if not hypers.scale_targets:
            continue
        if isinstance(weights, str):
            other = _affine_from(weights, target, info, checkpoints)
            affine.scale.copy_(other.scale)
            affine.reference.copy_(other.reference)
            continue
        fixed = weights.get(name)
        if isinstance(fixed, dict) and not target.pooled:
            fixed = _by_index(fixed, info.atomic_types)
        total = name in hypers.per_structure_targets and not target.pooled
        fit_scale(affine, target, samples, fixed, total)


def _affine_from(
    path: str, target: TargetInfo, info: DatasetInfo, checkpoints: Checkpoints
) -> Affine:
    """Composition and scale of a target in another checkpoint, for the elements of ``info``."""
    where = f"architecture.training.atomic_baseline: '{path}'"
    source, affine = affine_of_checkpoint(checkpoints.open(path), target.name)
    if affine is None:
        raise OptionsError(
            f"{where} has no target '{target.name}' (it has {', '.join(source.targets)})"
        )
    missing = sorted(set(info.atomic_types) - set(source.atomic_types))
    if missing:
        raise OptionsError(f"{where} knows nothing of the atomic numbers {missing}")
    other = source.targets[target.name]
    if other.blocks != target.blocks or other.per_atom != target.per_atom:
        raise OptionsError(f"{where} has target '{target.name}' in another shape")
    if other.unit.lower() != target.unit.lower():
        raise OptionsError(
            f"{where} has target '{target.name}' in '{other.unit}', the options in '{target.unit}'"
        )
    rows = torch.tensor([source.atomic_types.index(z) for z in info.atomic_types])
    chosen = Affine(target, len(rows))
    for name, values in affine.state_dict().items():
        chosen.state_dict()[name].copy_(values[rows])
    return chosen


def correct_composition(
    predictor: Predictor,
    store: StructureStore,
    hypers: TrainerHypers,
    targets: list[str],
    checkpoints: Checkpoints,
) -> None:
    """Refit the composition of known targets to what the network leaves unexplained.

    What ``atomic_baseline`` says is taken as it is. Scales stay: gradients were learnt on them.
    """
    info = predictor.dataset_info
    physical = without_baseline(store, predictor)
    for name in targets:
        target = info.targets[name]
        affine = predictor.affine_of(name)
        if target.pooled or not task_of(target.kind).scaled:
            continue
        if isinstance(hypers.atomic_baseline, str):
            affine.shift.copy_(
                _affine_from(hypers.atomic_baseline, target, info, checkpoints).shift
            )
            continue
        if not all(b.invariant for b in target.blocks):
            continue
        fixed = _by_index(hypers.atomic_baseline.get(name), info.atomic_types)
        for index, value in fixed.items():
            affine.shift[index] = value
        if target.per_atom:
            continue
        network = _network(predictor, store, name)
        samples = samples_of(physical, target, info.atomic_types)
        explained = network * affine.reference[0] * samples.composition.sum(1, keepdim=True)
        before = affine.shift.clone()
        left = samples.values - explained - samples.composition @ before
        rest = replace(samples, values=left)
        fit_composition(affine, target, rest, dict.fromkeys(fixed, 0.0))
        affine.shift += before


def _network(predictor: Predictor, store: StructureStore, name: str) -> Tensor:
    """What the network alone says of a target, dimensionless, ``[n_structures, width]`` float64."""
    left = normalised_store(store, predictor)
    left.labels = {name: left.labels[name]}
    dtype = next(predictor.model.parameters()).dtype
    source = BatchSource(left, predictor.model.cutoff, dtype)
    order = epoch_batches(store.n_atoms, batch_size=32)
    parts = [
        predict(predictor, batch, create_graph=False)[name].detach()
        for batch in source.epoch(order)
    ]
    return torch.cat(parts).to(torch.float64)


def _by_index(values: float | dict[int, float] | None, types: tuple[int, ...]) -> dict[int, float]:
    """Values by atomic number (or one for all) as values by index of the type."""
    if values is None:
        return {}
    if isinstance(values, (int, float)):
        return dict.fromkeys(range(len(types)), float(values))
    return {types.index(z): value for z, value in values.items() if z in types}


def affine_of_checkpoint(
    checkpoint: dict[str, Any], target: str
) -> tuple[DatasetInfo, Affine | None]:
    """What a checkpoint is for, and a target's composition and scale (None: it has no such target).

    Its architecture need not be installed.
    """
    info = DatasetInfo.from_dict(checkpoint["dataset_info"])
    if target not in info.targets:
        return info, None
    prefix = f"affine.{list(info.targets).index(target)}."
    affine = Affine(info.targets[target], len(info.atomic_types))
    saved: Mapping[str, Tensor] = checkpoint["core"]["affine"]
    own = {n.removeprefix(prefix): v for n, v in saved.items() if n.startswith(prefix)}
    affine.load_state_dict(own)
    return info, affine


def copy_affine(target: Predictor, source: Predictor, name: str) -> None:
    """Take over the composition and scale of a target that both predictors have."""
    target.affine_of(name).load_state_dict(source.affine_of(name).state_dict())
