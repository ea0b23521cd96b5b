"""What a fine-tuning forgets and what it learns: old and new data, and errors on both before and after."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atomtrain.data import (
    Datasets,
    Structures,
    StructureStore,
    check_inputs,
    joined,
    read_aside,
)
from atomtrain.errors import DataError, OptionsError
from atomtrain.model.inputs import inputs_of
from atomtrain.model.predictor import Predictor
from atomtrain.options import check_units, finetuning
from atomtrain.runs.plan import Plan
from atomtrain.sections.names import symbols
from atomtrain.targets import DatasetInfo
from atomtrain.training.evaluate import errors_on
from atomtrain.training.finetune import Replayed
from atomtrain.training.observers import Errors
from atomtrain.training.run import TrainingRun
from atomtrain.training.units import ShownError, shown_errors

if TYPE_CHECKING:
    from atomtrain.runs.start import Start

log = logging.getLogger("atomtrain")


def replayed(plan: Plan, data: Datasets) -> Replayed | None:
    """Which training structures are old, as the options say it; None where none are."""
    finetune = finetuning(plan.hypers)
    if finetune is None or finetune.replay is None:
        return None
    if not isinstance(data.train, StructureStore):
        raise OptionsError(
            "architecture.training.finetune.replay: the training set stays on disk, and old structures are drawn from "
            "memory; give architecture.training.memory_budget more, or fewer structures"
        )
    old = _of_old_sections(plan, data, "train")
    if not bool(old.any()) or bool(old.all()):
        which = "old" if not bool(old.any()) else "new"
        raise DataError(
            f"architecture.training.finetune.replay: no {which} structure is left in the training set"
        )
    found = Replayed(old, finetune.replay.share, finetune.replay.weight)
    log.info(f"replay: {int(old.sum())} old structures beside {int((~old).sum())} new ones")
    return found


def _of_old_sections(plan: Plan, data: Datasets, part: str) -> Tensor:
    """Which structures of a set are of training sections that are replayed, ``[n]`` bool."""
    finetune = finetuning(plan.hypers)
    assert finetune is not None and finetune.replay is not None
    frames = data.splits[part]
    ends = [0, *accumulate(len(found or ()) for found in frames)]
    old = torch.zeros(ends[-1], dtype=torch.bool)
    chosen = finetune.replay.sections or range(1, len(frames))
    for k, (start, stop) in enumerate(pairwise(ends)):
        old[start:stop] = k in chosen
    return old


class OldAndNew:
    """The structures that a fine-tuning is looked at by, before and after it.

    Of the validation set, if it is made of parts of the training sections, else of the training set. Raises
    OptionsError or DataError where ``finetune.old_data`` are nothing for the model.
    """

    def __init__(self, plan: Plan, data: Datasets, start: Start) -> None:
        self.sets: dict[str, Structures] = {}
        finetune = finetuning(plan.hypers)
        if finetune is None:
            return
        self.sets["new"] = data.validation if data.validated else data.train
        if finetune.replay is not None:
            for part, store in (("train", data.train), ("validation", data.validation)):
                old = _of_old_sections(plan, data, part)
                if len(old) == len(store) and bool(old.any()) and not bool(old.all()):
                    self.sets |= {
                        "old": store.select(old.nonzero().squeeze(1)),
                        "new": store.select((~old).nonzero().squeeze(1)),
                    }
        old_data = start.old_data or read_old_data(plan, start.predictor)
        if old_data is not None:
            self.sets["old"] = old_data

    def before(self, run: TrainingRun, source: Predictor | None) -> dict[str, Errors]:
        """Errors of the model at the start; on old data those of the checkpoint's, ``source``, as it is."""
        found = {}
        for name, store in self.sets.items():
            predictor = run.predictor
            if name == "old" and source is not None:
                known = source.dataset_info.atomic_types
                if set(store.elements) <= set(known):
                    predictor = source
            found[name] = self._errors(predictor, store, run)
        return found

    def after(self, run: TrainingRun) -> dict[str, Errors]:
        """Errors of the model that the run has."""
        return {name: self._errors(run.predictor, store, run) for name, store in self.sets.items()}

    def _errors(self, predictor: Predictor, store: Structures, run: TrainingRun) -> Errors:
        whole = store.select(torch.arange(len(store)))
        known = _completed(whole, predictor.dataset_info)
        return errors_on(copy.deepcopy(predictor), known, run)[0].results()

    def lines(self, run: TrainingRun, before: dict[str, Errors]) -> list[str]:
        """A small table: errors before and after."""
        info, totals = run.predictor.dataset_info, run.hypers.per_structure_targets
        rows = [("", "", "before", "after")]
        after = self.after(run)
        for name in sorted(before, reverse=True):  # old, new
            then, now = (
                {
                    (e.name, e.metric): e
                    for e in shown_errors(info, found.get(name, {}), ("rmse",), totals)
                }
                for found in (before, after)
            )
            title = f"{name} data ({len(self.sets[name])} structures)"
            for key in now:
                label = f"{now[key].name} {now[key].metric}" + f" [{now[key].unit}]" * bool(
                    now[key].unit
                )
                rows.append((title, label, _number(then.get(key)), _number(now[key])))
                title = ""
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        return [
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip()
            for a, b, c, d in rows
        ]


def _number(error: ShownError | None) -> str:
    return "-" if error is None else error.number


def _completed(store: StructureStore, info: DatasetInfo) -> StructureStore:
    """With a masked label for every gradient that the model has of a target and the structures have not."""
    labels = {}
    for name, target in info.targets.items():
        if name in store.labels:
            for key, shape in target.label_rows.items():
                labels[key] = store.labels.get(key) or store.no_label(*shape)
    return replace(store, labels=labels)


def read_old_data(plan: Plan, predictor: Predictor) -> StructureStore | None:
    """``finetune.old_data``, if there are any.

    Raises OptionsError or DataError where the model cannot say anything of them.
    """
    finetune = finetuning(plan.hypers)
    if finetune is None or finetune.old_data is None:
        return None
    section = finetune.old_data
    section._source = plan.options.source
    section._path = ("architecture", "training", "finetune", "old_data")
    check_units([section])
    info = predictor.dataset_info
    store, targets = read_aside(section, plan.architecture.info.default_kind, info)
    missing = [name for name in targets if name not in info.targets]
    if missing or not targets:
        what = f"'{missing[0]}' is" if missing else "there is"
        raise OptionsError(
            f"{section.where('targets')}: {what} no target of the fine-tuned model (it has {', '.join(info.targets)}); "
            "finetune.keep_heads: true keeps heads of the checkpoint that the training set has no target for"
        )
    strange = sorted(set(store.elements) - set(info.atomic_types))
    if strange:
        raise DataError(
            f"{section.where('systems')}: the old data contain {symbols(strange)}, which the model was not trained for"
        )
    check_inputs(inputs_of(predictor.model), store, section)
    return _completed(store, info)


def with_old_data(
    sample: StructureStore, old: StructureStore | None, predictor: Predictor
) -> StructureStore:
    """What compositions of known targets are fitted to: they are to be right for old structures too."""
    if old is None:
        return sample
    inputs = inputs_of(predictor.model)
    extra = {name: label for name, label in sample.extra.items() if name in inputs}
    info = predictor.dataset_info
    targets = {n: t for n, t in info.targets.items() if n in sample.labels}
    return joined([sample, old], targets, extra, "old data")
