"""How a training starts: from scratch, from a checkpoint of the same run, or from other weights."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomtrain.contract import BuildContext
from atomtrain.data import (
    Batch,
    BatchSource,
    Datasets,
    StructureStore,
    check_inputs,
    unused,
)
from atomtrain.errors import CheckpointError, DataError, OptionsError, TargetError
from atomtrain.model.base import Model
from atomtrain.model.growth import Growth
from atomtrain.model.inputs import inputs_of
from atomtrain.model.predictor import Predictor
from atomtrain.options import Finetune, finetuning
from atomtrain.plugins.restore import Restored, build_model, restore
from atomtrain.runs.directory import INCIDENTAL, newest_checkpoint
from atomtrain.runs.heads import for_targets, kept_targets, new_entries
from atomtrain.runs.plan import Plan
from atomtrain.runs.tuning import read_old_data, with_old_data
from atomtrain.sections import on_one_line
from atomtrain.sections.names import symbols
from atomtrain.targets import DatasetInfo
from atomtrain.training.affine import (
    copy_affine,
    correct_composition,
    fit_affines,
    grow_affines,
)
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.finetune import Began
from atomtrain.training.predict import normalised_store

log = logging.getLogger("atomtrain")
SAMPLE = 4000
"""atoms that a model may look at before it is trained, or a few more"""
OF_EACH = 50
"""atoms of each element among them, if there are so many"""


@dataclass(frozen=True)
class Start:
    """A predictor to be trained, the hypers its model has, and the checkpoint to go on from if any.

    ``changed_hypers`` of the trainer, by name what they were and are; ``data_changed``: since that checkpoint.
    A fine-tuning says what it ``began`` with, and where it begins what its ``source`` was, untouched, and the
    ``old_data`` that are looked at.
    """

    predictor: Predictor
    model_hypers: dict[str, Any]
    checkpoint: dict[str, Any] | None = None
    changed_hypers: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    data_changed: bool = False
    began: Began = field(default_factory=Began)
    source: Predictor | None = None
    old_data: StructureStore | None = None


def begin(plan: Plan, data: Datasets, found: tuple[Path, dict[str, Any]] | None) -> Start:
    """The predictor of a training; ``found`` is what :func:`checkpoint_to_restart` gave."""
    if found is not None:
        path, checkpoint = found
        start = from_restart(plan, data, checkpoint)
        log.info(f"restarting from '{path}'")
        return start
    finetune = finetuning(plan.hypers)
    if finetune is not None:
        start = from_finetune(plan, data, finetune)
        log.info(f"fine-tuning '{finetune.read_from}' ({finetune.method})")
        return start
    return from_scratch(plan, data)


def from_scratch(plan: Plan, data: Datasets) -> Start:
    """A fresh model with compositions and scales fitted to the training data."""
    torch.manual_seed(plan.options.seed)
    context = BuildContext("train", plan.hypers, open=plan.checkpoints.open)
    model = build_model(plan.architecture, plan.model_hypers, data.info, context)
    _check_inputs(plan, data, model)
    predictor = Predictor(model, data.info)
    fit_affines(
        predictor, data.train.sample, plan.hypers, list(data.info.targets), plan.checkpoints
    )
    labelled = normalised_store(data.train.sample, predictor)
    predictor.model.calibrate(_sample(labelled, model.cutoff, plan.options.seed))
    return Start(predictor, plan.model_hypers.model_dump(mode="json"))


def _sample(store: StructureStore, cutoff: float, seed: int) -> Iterator[Batch]:
    """Batches of structures until there are ``SAMPLE`` atoms, and enough of each element, made as they are taken."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(store), generator=generator)
    total = store.n_atoms[order].cumsum(0)
    taken = total - store.n_atoms[order] < SAMPLE
    for element in store.elements:
        of_it = torch.bincount(store.structure[store.types == element], minlength=len(store))[order]
        missing = OF_EACH - int(of_it[taken].sum())
        if missing > 0:
            more = of_it.masked_fill(taken, 0)
            taken |= (more > 0) & (more.cumsum(0) - more < missing)
    source = BatchSource(store, cutoff=cutoff, dtype=torch.float64)
    for structure in order[taken]:
        yield source.batch(structure.reshape(1))


def checkpoint_to_restart(
    plan: Plan, restart: str | Path | None, outputs: Path
) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from, and where it is; None if there is none.

    ``restart`` is a checkpoint, or ``auto`` for the newest in ``outputs``. Raises CheckpointError for one that
    cannot be read or is another architecture's.
    """
    if restart is None:
        return None
    if str(restart) == "auto":
        found = newest_checkpoint(outputs, plan.completed, plan.architecture.todays)
        if found is None:
            log.info(f"no checkpoint of these options below '{outputs}': starting from scratch")
            return None
        path, checkpoint = found
    else:
        path = Path(restart)
        checkpoint = load_checkpoint(path)
    _check_architecture(plan, checkpoint, f"'{path}'")
    return path, checkpoint


def from_restart(plan: Plan, data: Datasets, checkpoint: dict[str, Any]) -> Start:
    """The model of an earlier run with its last weights, compositions and scales.

    Model hypers and targets must be those of the checkpoint, elements some of it: CheckpointError otherwise.
    (A fine-tuning has the hypers of the model it began with.)
    """
    restored = restore(checkpoint, "restart", plan.hypers)
    before = restored.checkpoint["hypers"]["model"]
    now = plan.model_hypers.model_dump(mode="json")
    tuning = finetuning(plan.hypers)
    if before != now and tuning is None:
        changed = ", ".join(
            f"{path}: {on_one_line(old)} in the checkpoint, {on_one_line(new)} in the options"
            for path, old, new in _differences(before, now, "model")
        )
        raise CheckpointError(
            f"cannot restart with another model ({changed}); use the checkpoint's values, or "
            "train anew without --restart"
        )
    _check_inputs(plan, data, restored.predictor.model)
    old, info = restored.predictor.dataset_info, data.info
    trained_on = dict(old.targets)
    if tuning is not None and tuning.keep_heads:
        trained_on = {n: t for n, t in old.targets.items() if n in info.targets}
    if trained_on != info.targets or not set(info.atomic_types) <= set(old.atomic_types):
        raise CheckpointError(
            "cannot restart on other targets, or on more elements, than the checkpoint's "
            f"({', '.join(old.targets)}; {symbols(old.atomic_types)}); to train it further on new data "
            "use architecture.training.finetune.read_from"
        )
    unseen = sorted(set(old.atomic_types) - set(info.atomic_types))
    if unseen:
        log.info(f"the model keeps what it knows of {symbols(unseen)}, which the data do not have")
    data_changed = restored.checkpoint.get("fingerprint") != data.fingerprint
    if data_changed:
        log.warning(
            "the data are not those the checkpoint was trained on; compositions and scales "
            "stay those of the checkpoint"
        )
    return Start(
        restored.predictor,
        before,
        restored.checkpoint,
        changed_hypers(plan, restored.checkpoint),
        data_changed,
        Began.of(restored.checkpoint),
    )


def changed_hypers(plan: Plan, checkpoint: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The trainer's hypers that are not what the checkpoint was trained with, but for those of how it runs.

    What they were and are; the log says it.
    """
    then = checkpoint["hypers"].get("trainer") or {}
    now = plan.hypers.model_dump(mode="json")
    names = [n for n in now if ("architecture", "training", n) not in INCIDENTAL and n in then]
    # through JSON's eyes: a checkpoint has lists where options have tuples
    changed = {n: (then[n], now[n]) for n in names if _plain(then[n]) != _plain(now[n])}
    if changed:
        parts = [
            d
            for n, (old, new) in changed.items()
            for d in _differences(_plain(old), _plain(new), n)
        ]
        said = ", ".join(
            f"{path}: {on_one_line(old)} became {on_one_line(new)}" for path, old, new in parts
        )
        log.warning(
            f"from here on with other hypers of the training than the checkpoint's ({said})"
        )
    return changed


def _plain(value: Any) -> Any:
    """With lists for tuples, and keys as text."""
    return json.loads(json.dumps(value))


def from_finetune(plan: Plan, data: Datasets, finetune: Finetune) -> Start:
    """The model of another run with its best weights, made ready for these targets and data.

    Elements may be fewer than the checkpoint's; for others the model has to grow. Targets it knows keep their
    heads, new ones get fresh heads (or copies, ``inherit_heads``). The composition of a known target is
    corrected where the data have another reference energy.
    """
    checkpoint = plan.checkpoints.open(finetune.read_from)
    where = f"architecture.training.finetune.read_from: '{finetune.read_from}'"
    _check_architecture(plan, checkpoint, where)
    torch.manual_seed(plan.options.seed)
    restored = restore(checkpoint, "finetune", plan.hypers)
    _check_inputs(plan, data, restored.predictor.model)
    _check_replay(plan, restored.predictor.dataset_info)
    untouched = copy.deepcopy(restored.predictor) if finetune.replay or finetune.old_data else None
    known_types = set(restored.predictor.dataset_info.atomic_types)
    added = sorted(set(data.info.atomic_types) - known_types)
    _check_unit(data.info, restored.predictor.dataset_info)
    grown: dict[str, Tensor] = {}
    if added:
        restored, grown = _grown(plan, data, restored, added, finetune)
    source = restored.predictor
    kept = kept_targets(finetune, source.dataset_info, data.info)
    if kept:
        log.info(f"heads that are kept beside those of the data: {', '.join(kept)}")
    targets = {**data.info.targets, **kept}
    info = DatasetInfo(data.info.length_unit, source.dataset_info.atomic_types, targets)
    trained = {name: p.detach() for name, p in source.model.state_dict().items()}
    model, inherited = for_targets(plan, restored, info, finetune)
    predictor = Predictor(model, info)
    known = {t: t for t in info.targets if t in source.dataset_info.targets}
    if finetune.method == "encoder":
        known = {}
    known |= _same_scale(finetune, info, source.dataset_info)
    for target, of in known.items():
        copy_affine(predictor, source, target, of)
        given = plan.hypers.fixed_scaling_weights
        if isinstance(given, str) or target in given:
            log.warning(
                f"fixed_scaling_weights of '{target}' are not used: the checkpoint's heads were "
                "trained on its own scale, which stays"
            )
    new = [t for t in info.targets if t not in known]
    fit_affines(predictor, data.train.sample, plan.hypers, new, plan.checkpoints)
    errors = _own_errors(restored.checkpoint, source.dataset_info)
    old_data = read_old_data(plan, predictor)
    correct_composition(
        predictor,
        with_old_data(data.train.sample, old_data, predictor),
        plan.hypers,
        [t for t in known if t not in kept],
        plan.checkpoints,
        {target: errors[of] for target, of in known.items() if of in errors},
        [info.atomic_types.index(number) for number in added],
    )
    began = Began(new_entries(model, trained, grown, inherited) if finetune.lora else {})
    hypers = restored.checkpoint["hypers"]["model"]
    return Start(predictor, hypers, began=began, source=untouched, old_data=old_data)


def _same_scale(finetune: Finetune, info: DatasetInfo, source: DatasetInfo) -> dict[str, str]:
    """New targets whose inherited heads give what the known ones give, in one unit: by their names."""
    return {
        new: old
        for new, old in finetune.inherit_heads.items()
        if new not in source.targets
        and replace(info.targets[new], name=old, gradients=(), description="", unit="")
        == replace(source.targets[old], gradients=(), description="", unit="")
        and info.targets[new].unit.lower() == source.targets[old].unit.lower()
    }


def _check_replay(plan: Plan, source: DatasetInfo) -> None:
    """Raise OptionsError unless there are old sections beside new ones, of targets that the checkpoint has."""
    finetune = finetuning(plan.hypers)
    if finetune is None or finetune.replay is None:
        return
    where = "architecture.training.finetune.replay"
    sections = plan.options.training_set
    old = finetune.replay.sections or range(1, len(sections))
    if len(sections) < 2 or not set(old) < set(range(len(sections))):
        raise OptionsError(
            f"{where}: old structures are training sections beside the new ones, and training_set has {len(sections)} "
            f"section{'s' * (len(sections) > 1)}; give it a list, the new data first, and name in 'sections' (counted "
            "from 0) some of them, but not all"
        )
    for k in old:
        section = sections[k]
        if not set(section.targets) & set(source.targets):
            raise OptionsError(
                f"{section.where('targets')}: the section is replayed, and the checkpoint '{finetune.read_from}' has "
                f"no head for any of its targets ({', '.join(section.targets) or 'none'}); it has "
                f"{', '.join(source.targets)}"
            )


def _grown(
    plan: Plan, data: Datasets, restored: Restored, added: list[int], finetune: Finetune
) -> tuple[Restored, dict[str, Tensor]]:
    """The restored model with the atomic numbers ``added`` beside its own, and masks of what is new in its weights.

    Raises DataError where it cannot grow.
    """
    trained, before = restored.predictor, restored.predictor.dataset_info
    info = replace(before, atomic_types=tuple(sorted({*before.atomic_types, *added})))
    hypers = plan.architecture.model_hypers(restored.checkpoint)
    context = BuildContext("finetune", plan.hypers, restored.checkpoint)
    sample = data.train.sample
    is_new = torch.isin(sample.types, torch.tensor(added))
    structures = replace(sample, labels={})
    if bool(is_new.any()):  # else there is nothing of them, and others are looked at
        structures = structures.select(sample.structure[is_new].unique())
    try:
        model = build_model(plan.architecture, hypers, info, context)
        model.to(next((p.dtype for p in trained.model.parameters()), None))
        batches = partial(_sample, structures, model.cutoff, plan.options.seed)
        fresh = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.grow(trained.model, Growth(before.atomic_types, info.atomic_types, batches))
    except DataError as error:
        raise DataError(
            f"the training data contain {symbols(added)}, which the checkpoint '{finetune.read_from}' was not "
            f"trained for (it knows {symbols(before.atomic_types)}): {error}"
        ) from error
    predictor = Predictor(model, info)
    grow_affines(predictor, trained, Growth(before.atomic_types, info.atomic_types))
    log.info(f"the model takes in {symbols(added)}: weights that come with an element start anew")
    if finetune.method == "heads":
        log.warning(
            f"finetune.method: with 'heads' the encoder is not trained, and what it has of {symbols(added)} "
            "stays as random as it starts; 'full' trains it"
        )
    shapes = {name: p.shape for name, p in trained.model.named_parameters()}
    # what belongs to new elements keeps what it was built with
    new = {
        name: p.detach() == fresh[name]
        for name, p in model.named_parameters()
        if name in fresh and p.shape != shapes.get(name)
    }
    return replace(restored, predictor=predictor), new


def _own_errors(checkpoint: dict[str, Any], info: DatasetInfo) -> dict[str, float]:
    """The errors per atom that the checkpoint's best weights had in its own validation, by target."""
    found = (checkpoint.get("metrics") or {}).get("best_errors") or {}
    totals = (checkpoint["hypers"].get("trainer") or {}).get("per_structure_targets") or ()
    return {
        name: found[name]["rmse"]
        for name, target in info.targets.items()
        if name in found and "rmse" in found[name] and target.error_per(totals=totals) == "atom"
    }


def _check_inputs(plan: Plan, data: Datasets, model: Model) -> None:
    """Raise OptionsError unless the data have what the model takes beside atoms; warn of what it does not take.

    All sets have the extra data of the first section, and in one form.
    """
    inputs, sample = inputs_of(model), data.train.sample
    check_inputs(inputs, sample, plan.options.training_set[0])
    for name in unused(inputs, sample):
        log.warning(
            f"{plan.options.training_set[0].where('extra_data', name)}: nothing takes '{name}': it is neither an input "
            f"of the model ({', '.join(inputs) or 'it has none'}) nor a mask"
        )


def _check_architecture(plan: Plan, checkpoint: dict[str, Any], what: str) -> None:
    name = checkpoint["architecture"]["name"]
    if not plan.architecture.answers_to(name):
        raise CheckpointError(
            f"{what} holds a model of '{name}', but the options train "
            f"'{plan.architecture.info.name}'"
        )


def _check_unit(info: DatasetInfo, source: DatasetInfo) -> None:
    """Raise TargetError unless the data have the length unit of the checkpoint."""
    if info.length_unit != source.length_unit:
        raise TargetError(
            f"the data are in '{info.length_unit}', the checkpoint in '{source.length_unit}': give "
            "both the same length_unit"
        )


def _differences(a: Any, b: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            d for k in sorted({*a, *b}) for d in _differences(a.get(k), b.get(k), f"{path}.{k}")
        ]
    return [] if a == b else [(path, a, b)]
