"""How a training starts: from scratch, from a checkpoint of the same run, or from other weights."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from atomtrain.contract import BuildContext
from atomtrain.data import BatchSource, epoch_batches
from atomtrain.errors import CheckpointError, DataError, OptionsError, TargetError
from atomtrain.model.baselines import fit_composition, fit_constant, fit_scale
from atomtrain.model.heads import retarget, split_targets
from atomtrain.model.predictor import Affine, Predictor
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.tasks import task_of
from atomtrain.training.baseline import without_baseline
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.predict import normalised_store, predict, samples_of
from atomtrain.training.restore import (
    affine_of_checkpoint,
    build_model,
    copy_affine,
    restore,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.contract import Architecture
    from atomtrain.data import StructureStore
    from atomtrain.options import TrainerHypers

log = logging.getLogger("atomtrain")


def from_scratch(
    architecture: Architecture,
    model_hypers: BaseModel,
    hypers: TrainerHypers,
    info: DatasetInfo,
    train: StructureStore,
    seed: int,
) -> Predictor:
    """A fresh model with baselines and scales fitted to the training data."""
    torch.manual_seed(seed)
    model = build_model(architecture, model_hypers, info, BuildContext("train", hypers))
    predictor = Predictor(model, info)
    fit_baselines(predictor, train, hypers, list(info.targets))
    return predictor


def from_restart(
    checkpoint: dict[str, Any],
    model_hypers: BaseModel,
    hypers: TrainerHypers,
    info: DatasetInfo,
    fingerprint: str,
) -> Predictor:
    """The model of an earlier run with its last weights, baselines and scales.

    Model hypers, targets and elements must be those of the checkpoint: CheckpointError otherwise.
    """
    _, predictor = restore(checkpoint, "restart", hypers)
    before = checkpoint["hypers"]["model"]
    now = model_hypers.model_dump(mode="json")
    if before != now:
        changed = ", ".join(
            f"{path}: {old!r} in the checkpoint, {new!r} in the options"
            for path, old, new in _differences(before, now)
        )
        raise CheckpointError(
            f"cannot restart with another model ({changed}); use the checkpoint's values, or "
            "train anew without --restart"
        )
    old = predictor.dataset_info
    if old.atomic_types != info.atomic_types or old.targets != info.targets:
        raise CheckpointError(
            "cannot restart on other targets or elements than the checkpoint's "
            f"({', '.join(old.targets)}; atomic numbers {list(old.atomic_types)}); to train it "
            "further on new data use architecture.training.finetune.read_from"
        )
    if checkpoint.get("fingerprint") != fingerprint:
        log.warning(
            "the data are not those the checkpoint was trained on; baselines and scales stay "
            "those of the checkpoint"
        )
    return predictor


def from_finetune(
    architecture: Architecture,
    hypers: TrainerHypers,
    info: DatasetInfo,
    train: StructureStore,
    seed: int,
) -> Predictor:
    """The model of another run with its best weights, made ready for these targets and data.

    Elements may be fewer than the checkpoint's, not others. Targets it knows keep their heads,
    new ones get fresh heads (or copies, ``inherit_heads``). The composition baseline of a known
    target is corrected by what the network leaves unexplained, so that data of another reference
    energy start well.
    """
    finetune = hypers.finetune
    assert finetune is not None
    checkpoint = load_checkpoint(finetune.read_from)
    name = checkpoint["architecture"]["name"]
    if not architecture.answers_to(name):
        raise CheckpointError(
            f"architecture.training.finetune.read_from: '{finetune.read_from}' holds a model of "
            f"'{name}', but the options train '{architecture.info.name}'"
        )
    torch.manual_seed(seed)
    _, source = restore(checkpoint, "finetune", hypers)
    unknown = sorted(set(info.atomic_types) - set(source.dataset_info.atomic_types))
    if unknown:
        from ase.data import chemical_symbols

        symbols = ", ".join(chemical_symbols[z] for z in unknown)
        known = ", ".join(chemical_symbols[z] for z in source.dataset_info.atomic_types)
        raise DataError(
            f"the training data contain {symbols}, which the checkpoint "
            f"'{finetune.read_from}' was not trained for (it knows {known}); fine-tune on data "
            "with these elements only, or train anew"
        )
    if info.length_unit != source.dataset_info.length_unit:
        raise TargetError(
            f"the data are in '{info.length_unit}', the checkpoint in "
            f"'{source.dataset_info.length_unit}': give both the same length_unit"
        )
    info = DatasetInfo(info.length_unit, source.dataset_info.atomic_types, info.targets)
    model = source.model
    trained = {n: p.detach().clone() for n, p in model.state_dict().items()}
    if info.targets != source.dataset_info.targets or finetune.method == "encoder":
        fits = (architecture.info.target_kinds, architecture.info.name)
        before, _ = split_targets(source.dataset_info, *fits)
        model = retarget(model, before, *split_targets(info, *fits))
    if finetune.method == "encoder":  # heads start anew
        fresh = build_model(
            architecture,
            architecture.model_hypers_class().model_validate(checkpoint["hypers"]["model"]),
            info,
            BuildContext("train", hypers, architecture.upgrade_checkpoint(checkpoint)),
        ).state_dict()
        own = model.state_dict()
        for n, p in fresh.items():
            if model.is_head(n):
                own[n].copy_(p)
    _inherit_heads(model, trained, finetune.inherit_heads, info)
    predictor = Predictor(model, info)
    known_targets = [
        t for t in info.targets if t in source.dataset_info.targets and finetune.method != "encoder"
    ]
    for target in known_targets:
        copy_affine(predictor, source, target)
        if target in hypers.fixed_scaling_weights:
            log.warning(
                "fixed_scaling_weights of '%s' are not used: the checkpoint's heads were trained on "
                "its own scale, which stays",
                target,
            )
    fit_baselines(predictor, train, hypers, [t for t in info.targets if t not in known_targets])
    _correct_composition(predictor, train, known_targets, hypers)
    return predictor


def fit_baselines(
    predictor: Predictor, store: StructureStore, hypers: TrainerHypers, targets: list[str]
) -> None:
    """Fit (or take from the options, or from a checkpoint) composition and scale of these targets."""
    info = predictor.dataset_info
    store = without_baseline(store, predictor)
    for name in targets:
        target = info.targets[name]
        affine = predictor.affine_of(name)
        if not task_of(target.kind).scaled:
            if target.kind == "denoising" and not target.extra["normalize"]:
                affine.scale.fill_(target.extra["scale"])
                affine.reference.fill_(target.extra["scale"])
            continue
        samples = samples_of(store, target, info.atomic_types)
        if target.pooled:
            given = hypers.atomic_baseline
            number = given.get(name) if isinstance(given, dict) else None
            fit_constant(affine, samples, number if isinstance(number, float) else None)
        elif isinstance(hypers.atomic_baseline, str):
            affine.shift.copy_(_affine_from(hypers.atomic_baseline, target, info).shift)
        else:
            fixed = _by_index(hypers.atomic_baseline.get(name), info.atomic_types)
            fit_composition(affine, target, samples, fixed)
        if not hypers.scale_targets:
            continue
        if target.pooled and not isinstance(hypers.fixed_scaling_weights, str):
            fit_scale(affine, target, samples, hypers.fixed_scaling_weights.get(name))
            continue
        if isinstance(hypers.fixed_scaling_weights, str):
            other = _affine_from(hypers.fixed_scaling_weights, target, info)
            affine.scale.copy_(other.scale)
            affine.reference.copy_(other.reference)
            continue
        weights = hypers.fixed_scaling_weights.get(name)
        if isinstance(weights, dict):
            weights = _by_index(weights, info.atomic_types)
        total = name in hypers.per_structure_targets
        fit_scale(affine, target, samples, weights, total)


def _affine_from(path: str, target: TargetInfo, info: DatasetInfo) -> Affine:
    """Baseline and scale of a target in another checkpoint, for the elements of ``info``."""
    where = f"architecture.training.atomic_baseline: '{path}'"
    source, affine = affine_of_checkpoint(load_checkpoint(path), target.name)
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


def _correct_composition(
    predictor: Predictor, store: StructureStore, targets: list[str], hypers: TrainerHypers
) -> None:
    """Refit the composition baseline of known targets to what the network leaves unexplained.

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
            affine.shift.copy_(_affine_from(hypers.atomic_baseline, target, info).shift)
            continue
        if not all(b.invariant for b in target.blocks):
            continue
        fixed = _by_index(hypers.atomic_baseline.get(name), info.atomic_types)
        for index, value in fixed.items():
            affine.shift[index] = value
        if target.per_atom:
            continue
        left = normalised_store(store, predictor)
        left.labels = {name: left.labels[name]}
        source = BatchSource(
            left,
            cutoff=predictor.model.cutoff,
            dtype=next(predictor.model.parameters()).dtype,
            constants=None,
            device=torch.device("cpu"),
            memory_budget=0,
            num_workers=0,
        )
        order = epoch_batches(store.n_atoms, batch_size=32, seed=0, epoch=0, shuffle=False)
        parts = []
        for batch in source.epoch(order):
            parts.append(predict(predictor, batch, create_graph=False)[name].detach())
        network = torch.cat(parts).to(torch.float64)
        samples = samples_of(physical, target, info.atomic_types)
        explained = network * affine.reference[0] * samples.composition.sum(1, keepdim=True)
        before = affine.shift.clone()
        rest = type(samples)(
            samples.values - explained - samples.composition @ before,
            samples.mask,
            samples.type_index,
            samples.structure,
            samples.n_types,
            samples.n_structures,
        )
        fit_composition(affine, target, rest, dict.fromkeys(fixed, 0.0))
        affine.shift += before


def _inherit_heads(
    model: torch.nn.Module,
    trained: dict[str, torch.Tensor],
    inherit: dict[str, str],
    info: DatasetInfo,
) -> None:
    """Start the head of each new target from a trained one, by the targets' names in the weights."""
    own = model.state_dict()
    for new, old in inherit.items():
        if new not in info.targets:
            raise OptionsError(
                f"architecture.training.finetune.inherit_heads: there is no target '{new}'"
            )
        copied = 0
        for name, value in trained.items():
            parts = name.split(".")
            if old not in parts:
                continue
            counterpart = ".".join(new if part == old else part for part in parts)
            # the encoder is inside where there are heads of the core, here or there
            for place in (counterpart, f"encoder.{counterpart}", counterpart[len("encoder.") :]):
                if place in own and own[place].shape == value.shape:
                    own[place].copy_(value)
                    copied += 1
                    break
        if not copied:
            raise OptionsError(
                f"architecture.training.finetune.inherit_heads: the checkpoint has no head "
                f"'{old}' that fits '{new}'"
            )


def _by_index(values: float | dict[int, float] | None, types: tuple[int, ...]) -> dict[int, float]:
    """Values by atomic number (or one for all) as values by index of the type."""
    if values is None:
        return {}
    if isinstance(values, (int, float)):
        return dict.fromkeys(range(len(types)), float(values))
    return {types.index(z): value for z, value in values.items() if z in types}


def _differences(a: Any, b: Any, path: str = "model") -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            d for k in sorted({*a, *b}) for d in _differences(a.get(k), b.get(k), f"{path}.{k}")
        ]
    return [] if a == b else [(path, a, b)]
