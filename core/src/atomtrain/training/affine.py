"""Fitting the composition and scale of every target, or taking them from options or checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from atomtrain.data import BatchSource, StructureStore, epoch_batches
from atomtrain.errors import OptionsError
from atomtrain.model.affine import (
    Affine,
    Samples,
    fit_composition,
    fit_constant,
    fit_scale,
    residual,
)
from atomtrain.model.growth import Growth
from atomtrain.model.predictor import Predictor
from atomtrain.options import BaseTrainerHypers
from atomtrain.sections.names import symbols
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.tasks import task_of
from atomtrain.training.checkpoint import Checkpoints
from atomtrain.training.physics import without_baseline
from atomtrain.training.predict import normalised_store, predict, samples_of

log = logging.getLogger("atomtrain")


def fit_affines(
    predictor: Predictor,
    store: StructureStore,
    hypers: BaseTrainerHypers,
    targets: list[str],
    checkpoints: Checkpoints,
) -> None:
    """Fit (or take from the options, or from a checkpoint) composition and scale of these targets."""
    info = predictor.dataset_info
    _say_what_is_not_used(hypers, targets, info)
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
            shifts = _affine_from("atomic_baseline", given, target, info, checkpoints)
            affine.shift.copy_(shifts.shift)
        else:
            fit_composition(affine, target, samples, _by_index(given.get(name), info.atomic_types))
        if not hypers.scale_targets:
            continue
        if isinstance(weights, str):
            other = _affine_from("fixed_scaling_weights", weights, target, info, checkpoints)
            affine.scale.copy_(other.scale)
            affine.reference.copy_(other.reference)
            continue
        fixed = weights.get(name)
        if isinstance(fixed, dict) and not target.pooled:
            fixed = _by_index(fixed, info.atomic_types)
        total = name in hypers.per_structure_targets and not target.pooled
        fit_scale(affine, target, samples, fixed, total)


def _affine_from(
    hyper: str, path: str, target: TargetInfo, info: DatasetInfo, checkpoints: Checkpoints
) -> Affine:
    """Composition and scale of a target in another checkpoint, for the elements of ``info``.

    ``hyper`` is where the options name its ``path``.
    """
    where = f"architecture.training.{hyper}: '{path}'"
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
    hypers: BaseTrainerHypers,
    targets: list[str],
    checkpoints: Checkpoints,
    errors: Mapping[str, float],
    added: Sequence[int] = (),
) -> None:
    """Fit the composition of known targets to data of another reference, and to new elements.

    ``errors`` are the model's own, per atom, of sums over atoms; ``added`` indices of types that it has only just
    got. Their part of the composition (of targets of atoms the scale too) is fitted to what the network and the
    known elements leave. The known elements' part stays, unless data have another reference
    (:func:`_another_reference`). What ``atomic_baseline`` says is taken as it is. Scales of known elements stay:
    gradients were learnt on them.
    """
    info = predictor.dataset_info
    _say_what_is_not_used(hypers, targets, info)
    physical = without_baseline(store, predictor)
    for name in targets:
        target = info.targets[name]
        affine = predictor.affine_of(name)
        if target.pooled or not task_of(target.kind).scaled:
            continue
        samples = samples_of(physical, target, info.atomic_types)
        given = hypers.atomic_baseline
        if isinstance(given, str):
            shifts = _affine_from("atomic_baseline", given, target, info, checkpoints)
            affine.shift.copy_(shifts.shift)
        elif any(b.invariant for b in target.blocks):
            fixed = _by_index(given.get(name), info.atomic_types)
            for index, value in fixed.items():
                for block, _, properties in target.parts:
                    affine.shift[index, properties] = value if block.invariant else 0.0
            if target.per_atom:
                _fit_rows(affine, target, samples, [t for t in added if t not in fixed])
            else:
                explained = _network(predictor, store, name) * affine.reference[0]
                _correct_sums(affine, target, samples, explained, fixed, errors.get(name), added)
        if target.per_atom and not target.zero_mean and hypers.scale_targets:
            _scale_rows(affine, target, samples, added)


def _correct_sums(
    affine: Affine,
    target: TargetInfo,
    samples: Samples,
    explained: Tensor,
    fixed: Mapping[int, float],
    error: float | None,
    added: Sequence[int],
) -> None:
    """The composition of a sum over atoms; ``explained`` per atom by the network, ``[n_structures, width]``."""
    n_atoms = samples.composition.sum(1, keepdim=True)

    def left() -> Samples:
        return replace(samples, values=residual(affine, target, samples) - explained * n_atoms)

    def fit(types: Sequence[int]) -> None:
        start = affine.shift.clone()
        others = {t: 0.0 for t in range(samples.n_types) if t not in types or t in fixed}
        fit_composition(affine, target, left(), others)
        affine.shift += start

    # the new ones first: where compositions do not tell elements apart it is these that are unknown
    if added:
        fit(added)
    if not all(b.invariant for b in target.blocks):
        return
    start, before = affine.shift.clone(), left()
    every = range(samples.n_types)
    fit(every)
    free = samples.composition[:, [t for t in every if t not in fixed]]
    if _another_reference(before, left(), free, error, float(affine.reference[0])):
        log.info(f"'{target.name}': the data have another reference, the composition follows it")
    else:
        affine.shift.copy_(start)


def _another_reference(
    before: Samples, after: Samples, free: Tensor, error: float | None, scale: float
) -> bool:
    """Whether data are of another reference: what is left of them is for the most part one of compositions.

    ``before`` and ``after`` have what is left as values, without and with another composition, whose elements
    have the counts ``free [n_structures, n_free]``. Data that the model explains, within twice its own ``error``,
    are not. Else another composition must halve what is left; of data so few that any composition would fit, what
    is left must be larger than the target's ``scale``.
    """
    n_atoms = before.composition.sum(1, keepdim=True)
    there = before.mask
    size, rest = ((s.values / n_atoms)[there].square().mean().sqrt() for s in (before, after))
    if error is not None and size <= 2.0 * error:
        return False
    n, n_fitted = int(there.any(1).sum()), int(torch.linalg.matrix_rank(free))
    if n <= n_fitted:
        return bool(size > scale)
    return bool(rest * (n / (n - n_fitted)) ** 0.5 < 0.5 * size)


def _fit_rows(affine: Affine, target: TargetInfo, samples: Samples, types: Sequence[int]) -> None:
    """The composition of a target of atoms, for these types."""
    fitted = Affine(target, samples.n_types)
    fit_composition(fitted, target, samples)
    for t in types:
        affine.shift[t] = fitted.shift[t]


def _scale_rows(affine: Affine, target: TargetInfo, samples: Samples, types: Sequence[int]) -> None:
    """The scale of a target of atoms, for those of these types that there are labels of."""
    fitted = Affine(target, samples.n_types)
    fitted.shift.copy_(affine.shift)
    fit_scale(fitted, target, samples)
    labelled = samples.type_index[samples.mask.any(1)]
    for t in types:
        if bool((labelled == t).any()):
            affine.scale[t], affine.reference[t] = fitted.scale[t], fitted.reference[t]


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


def _say_what_is_not_used(
    hypers: BaseTrainerHypers, targets: Sequence[str], info: DatasetInfo
) -> None:
    """Warn of compositions and scales given for elements that the model does not have."""
    for field in ("atomic_baseline", "fixed_scaling_weights"):
        given = getattr(hypers, field)
        for name in targets if isinstance(given, dict) else ():
            types = given.get(name)
            strange = set(types if isinstance(types, dict) else ()) - set(info.atomic_types)
            if strange:
                log.warning(
                    f"architecture.training.{field}.{name}: {symbols(sorted(strange))} is not used, "
                    f"the model is for {symbols(info.atomic_types)}"
                )


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


def grow_affines(grown: Predictor, trained: Predictor, growth: Growth) -> None:
    """Compositions and scales of ``trained`` for more elements.

    New ones have nothing in a composition yet, and scales as large as the others'.
    """
    for name, target in trained.dataset_info.targets.items():
        new, old = grown.affine_of(name), trained.affine_of(name)
        for rows, known in zip(new.buffers(), old.buffers(), strict=True):
            # one scale, or one constant, for all types: to the last bit
            rows.copy_(known[:1].expand_as(rows))
            if target.per_atom and not target.zero_mean:
                rows.copy_(known.square().mean(0).sqrt().expand_as(rows))
        if not target.pooled:
            new.shift.zero_()
        growth.take_over(new, old)


def copy_affine(target: Predictor, source: Predictor, name: str, of: str = "") -> None:
    """Take over the composition and scale of a target that both predictors have, or ``of`` another one."""
    target.affine_of(name).load_state_dict(source.affine_of(of or name).state_dict())
