"""Errors in physical units, summed over batches without ever leaving the device."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from atomtrain.data.store import StructureStore
from atomtrain.graph import volumes
from atomtrain.targets import DatasetInfo, TargetInfo, split_key
from atomtrain.tasks import Task, task_of

if TYPE_CHECKING:
    from atomtrain.model.predictor import Predictor

RESOLUTION = 1e-4
"""The part of a label's scale below which errors are not told apart when the best model is chosen."""
CONSTANT = 1e-9
"""Labels whose deviations are this small relative to their size are constant: the rest is rounding."""


class ErrorSums:
    """What metrics are made of, summed over batches and processes: one flat tensor, ``sums``.

    ``keys`` are label keys (``energy``, ``energy:forces``, ``energy:strain``). For numbers squared and
    absolute errors: per-structure targets count per atom; the strain derivative counts as stress
    (over volume, periodic structures only). Other kinds of targets bring sums of their own
    (:meth:`atomtrain.tasks.Task.metric_sums`). ``blocks`` are columns of labels to be counted apart
    as well, by a key of their own (see :func:`block_columns`). ``variances`` of labels give R2.
    """

    def __init__(
        self,
        keys: list[str],
        device: torch.device,
        blocks: Mapping[str, Mapping[str, slice]] | None = None,
        info: DatasetInfo | None = None,
        variances: Mapping[str, float] | None = None,
    ) -> None:
        self.variances = variances or {}
        self.tasks: dict[str, tuple[Task, TargetInfo]] = {}
        for key, target in info.targets.items() if info is not None else ():
            task = task_of(target.kind)
            if key in keys and task.metric_size(target) > 0:
                self.tasks[key] = (task, target)
        self.order = keys
        self.parts: dict[str, dict[str, slice]] = {
            key: {key: slice(None), **(blocks or {}).get(key, {})}
            for key in keys
            if key not in self.tasks
        }
        self.keys = [part for parts in self.parts.values() for part in parts]
        sizes = [task.metric_size(target) for task, target in self.tasks.values()]
        n = 3 * len(self.keys)
        self.sums = torch.zeros(n + sum(sizes), dtype=torch.float64, device=device)
        # [n_keys, 3]: sum of squares, sum of absolutes, count; views of the one tensor
        self.errors = self.sums[:n].view(-1, 3)
        own = self.sums[n:].split(sizes) if sizes else ()
        self.own: dict[str, Tensor] = dict(zip(self.tasks, own, strict=True))

    def add(self, key: str, error: Tensor, mask: Tensor | None) -> None:
        """Add ``error [n_samples, width]`` (prediction minus label) of one batch."""
        error = error.detach().to(torch.float64)
        if mask is not None:
            error = error * mask
        for part, columns in self.parts[key].items():
            row, here = self.errors[self.keys.index(part)], error[:, columns]
            row[0] += here.square().sum()
            row[1] += here.abs().sum()
            row[2] += here.numel() if mask is None else mask[:, columns].sum()

    def add_samples(self, key: str, prediction: Tensor, label: Tensor, mask: Tensor | None) -> None:
        """Add finished predictions of a target whose task has metrics of its own."""
        task, target = self.tasks[key]
        self.own[key] += task.metric_sums(prediction, label, mask, target)

    def results(self) -> dict[str, dict[str, float]]:
        """``{key: {"rmse": ..., "mae": ..., "count": ...}}``; nan where nothing was counted."""
        values: dict[str, dict[str, float]] = {}
        for key, (squares, absolutes, count) in zip(self.keys, self.errors.tolist(), strict=True):
            values[key] = {
                "rmse": math.sqrt(squares / count) if count else math.nan,
                "mae": absolutes / count if count else math.nan,
                "count": count,
            }
            variance = self.variances.get(key, 0.0)
            if count and variance > 0:
                values[key]["r2"] = 1.0 - squares / count / variance
        for key, (task, target) in self.tasks.items():
            found = task.metrics(self.own[key].cpu(), target)
            values[key] = {name: float(value) for name, value in found.items()}
        first = [part for key in self.order for part in (self.parts.get(key) or [key])]
        return {key: values[key] for key in first}

    def confusions(self) -> dict[str, np.ndarray]:
        """Confusion matrices ``[n_classes, n_classes]`` of classifications: rows are labels."""
        found = {
            key: task.confusion(self.own[key].cpu(), target)
            for key, (task, target) in self.tasks.items()
        }
        return {k: matrix.astype(np.int64) for k, matrix in found.items() if matrix is not None}


def as_counted(
    values: Tensor,
    store: StructureStore,
    target: TargetInfo,
    gradient: str = "",
    totals: Collection[str] = (),
) -> Tensor:
    """Values of a label as its errors are counted: per atom, per volume (0 without one), or as they are."""
    per = target.error_per(gradient, totals)
    if per == "atom":
        return values / store.n_atoms.to(torch.float64)[:, None]
    if per == "volume":
        volume = volumes(store.cells)[:, None]
        return torch.where(volume > 0, values / volume.clamp(min=1e-30), 0.0)
    return values


def label_variances(
    store: StructureStore, info: DatasetInfo, totals: Collection[str] = ()
) -> dict[str, float]:
    """Variance of each target's labels about their mean, counted as errors are: per atom."""
    found = {}
    for name, target in info.targets.items():
        label = store.labels.get(name)
        per = target.error_per(totals=totals)
        if label is None or not task_of(target.kind).scaled or per == "volume":
            continue
        values = label.values / store.n_atoms[:, None] if per == "atom" else label.values
        mask = label.there.to(values.dtype)
        n = mask.sum().clamp(min=1)
        mean = (values * mask).sum(0) / mask.sum(0).clamp(min=1)
        variance = float(((values - mean).square() * mask).sum() / n)
        size = float((values.square() * mask).sum() / n)
        found[name] = variance if variance > CONSTANT**2 * size else 0.0
    return found


def constant_labels(
    stores: Collection[StructureStore], info: DatasetInfo, totals: Collection[str] = ()
) -> set[str]:
    """The label keys that say the same of every structure: no model is better for what it makes of them.

    Gradients are constant where all are zero, which symmetry makes them.
    """
    found = set()
    for key in label_keys(info):
        name, gradient = split_key(key)
        labels = [store.labels[key] for store in stores if key in store.labels]
        if gradient:
            constant = not any(bool(label.values.any()) for label in labels)
        else:
            variances = [label_variances(store, info, totals).get(name, 1.0) for store in stores]
            constant = not any(variances) and all(bool(label.there.any()) for label in labels)
        if constant:
            found.add(key)
    return found


def error_floors(
    predictor: Predictor, store: StructureStore, totals: Collection[str] = ()
) -> dict[str, float]:
    """By label key, the size below which errors are not told apart (see :func:`score`).

    It is :data:`RESOLUTION` times the scale that labels were divided by, in the units of the errors. The
    ``store`` tells how dense structures are, which is what stress needs.
    """
    info = predictor.dataset_info
    volume = volumes(store.cells) * store.pbc.all(1)
    atoms = float(store.n_atoms[volume > 0].sum())
    density = atoms / max(float(volume.sum()), 1e-30) if atoms else 1.0
    found = {}
    for key in label_keys(info):
        name, gradient = split_key(key)
        target = info.targets[name]
        floor = RESOLUTION * float(predictor.affine_of(name).reference.max())
        if target.error_per(gradient, totals) == "volume":
            floor *= density
        found[key] = floor
    return found


def label_keys(dataset_info: DatasetInfo) -> list[str]:
    """All label keys of the targets, in order."""
    return [key for target in dataset_info.targets.values() for key in target.label_rows]


def block_columns(dataset_info: DatasetInfo) -> dict[str, dict[str, slice]]:
    """Where the blocks of targets with several are in a label, ``{target: {"name (l=1, s=1)": ...}}``."""
    return {
        name: {f"{name} ({block.title})": columns for block, columns, _ in target.parts}
        for name, target in dataset_info.targets.items()
        if len(target.blocks) > 1
    }


def score(
    metric: str,
    loss: float,
    errors: dict[str, dict[str, float]],
    info: DatasetInfo | None = None,
    floors: Mapping[str, float] | None = None,
) -> float:
    """The number the best model has the smallest of: ``rmse_prod``, ``mae_prod`` or ``loss``.

    The products run over all ``errors`` of which there are any, gradients included. Kinds of targets
    that have no such error bring what stands for one (:attr:`atomtrain.tasks.Task.measure`). An error
    counts as no less than its floor: one that is zero from the start (forces of perfect crystals), or
    rounding, would otherwise make every model as good as any other.
    """
    if metric == "loss":
        return loss
    kind = metric.removesuffix("_prod")
    product = 1.0
    for key, found in errors.items():
        if found["count"] > 0:
            target = None if info is None else info.targets.get(key)
            own = kind if kind in found or target is None else task_of(target.kind).measure
            product *= max(found[own], (floors or {}).get(key, 0.0))
    return product
