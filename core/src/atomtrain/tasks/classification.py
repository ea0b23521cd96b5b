"""Classes: binary and multi-class, from integers, names or probabilities."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from atomtrain.errors import DataError, TargetError
from atomtrain.sections import Section
from atomtrain.targets import TargetInfo
from atomtrain.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atomtrain.frame import Frame
    from atomtrain.losses import Loss

log = logging.getLogger("atomtrain")

TOP = 5
BINS = 4096
"""bins of the histogram of log-odds, -20 to 20, that the area under the ROC curve is taken from"""
TINY = 1e-12
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
TRUE = ("t", "true", "yes", "on")
FALSE = ("f", "false", "no", "off")
"""words that files of options or of structures may have turned into booleans, in lower case"""

Name = str | int | bool


class ClassesArguments(Section):
    """What may follow ``classes``."""

    names: Annotated[list[Name], Field(min_length=2)] | None = None
    """Names of the classes, in the order the model has them. Absent: those in the training set,
    sorted."""
    number: Annotated[int, Field(ge=2)] | None = None
    """Number of classes whose names are 0, 1, 2, ..."""

    @model_validator(mode="after")
    def _either(self) -> ClassesArguments:
        if self.names is not None and self.number is not None:
            raise ValueError("give names or number, not both")
        if self.names is not None and len({str(n) for n in self.names}) < len(self.names):
            raise ValueError("a name is given twice")
        return self


class BinaryArguments(Section):
    """What may follow ``binary``."""

    names: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = None
    """Names of the two classes: that of 0 and that of 1. Absent: labels are 0 and 1, false and
    true, or the two names in the training set, sorted."""


class Classification(Task):
    """What binary and multi-class targets have in common."""

    pooling = "mean"
    classification = True
    measure = "cross entropy"

    def error_unit(self, info: TargetInfo, length: str) -> str:
        return ""


class Classes(Classification):
    """One class of several: a name, an integer, or a probability for each.

    The model gives logits, predictions are probabilities (softmax), labels are stored as such.
    """

    kind = "classes"
    arguments: type[Section] = ClassesArguments
    losses = ("cross_entropy",)
    shown: tuple[str, ...] = ("accuracy", "balanced accuracy")
    fixed_classes = False
    """whether the classes are what they are, whichever of them occur in the training set"""

    def complete(self, info: TargetInfo) -> TargetInfo:
        arguments = ClassesArguments.model_validate(info.extra)
        names = info.classes
        number = arguments.number
        if number is None and arguments.names is None and info.num_subtargets > 1 and not names:
            number = info.num_subtargets  # as metatrain's classifier writes it
        if arguments.names is not None:
            names = tuple(_name(value) for value in arguments.names)
        elif number is not None:
            names = tuple(map(str, range(number)))
        return replace(info, classes=names, num_subtargets=max(len(names), 1))

    def classes_in(self, values: Iterable[Any]) -> tuple[str, ...]:
        found: set[str] = set()
        flags: set[str] = set()
        width = 0
        for value in values:
            array = np.asarray(value)
            if array.dtype.kind == "f" and array.ndim and not _whole(array):
                width = max(width, array.shape[-1])
            elif array.dtype.kind in "fiu" and array.ndim == 1 and _one_hot(array):
                width = max(width, len(array))
            else:
                names = flags if array.dtype.kind == "b" else found
                names.update(_name(one) for one in array.ravel().tolist())
        if width:
            return tuple(map(str, range(width)))
        # among words, T and F are words too, which extended xyz takes for booleans
        found |= {name[0].upper() for name in flags} if found else flags
        if all(_is_integer(name) for name in found):
            return tuple(sorted(found, key=int))
        return tuple(sorted(found))

    def row(self, value: Any, info: TargetInfo, structure: Frame) -> np.ndarray:
        rows = len(structure.numbers) if info.per_atom else 1
        n = len(info.classes)
        array = np.asarray(value)
        if array.size == rows * n and n > 1 and array.dtype.kind in "fiub":
            probabilities = array.reshape(rows, n).astype(np.float64)
            there = ~np.isnan(probabilities).any(1)
            if (probabilities[there] < 0).any():
                raise ValueError("a probability is negative")
            sums = probabilities[there].sum(1)
            if (abs(sums - 1.0) > 1e-3).any():
                raise ValueError(
                    f"the probabilities of the {n} classes sum to {sums[abs(sums - 1).argmax()]:g} "
                    "instead of 1"
                )
            probabilities[there] /= sums[:, None]
            return probabilities
        if array.size != rows:
            raise ValueError(
                f"it has shape {array.shape}; expected a class (a name or an integer) or "
                f"{n} probabilities{' for each atom' if info.per_atom else ''}"
            )
        result = np.zeros((rows, n))
        for k, one in enumerate(array.ravel().tolist()):
            if one is None or (isinstance(one, float) and np.isnan(one)):
                result[k] = np.nan
                continue
            result[k, self._index(one, info)] = 1.0
        return result

    def _index(self, value: Any, info: TargetInfo) -> int:
        name, found = _name(value), _position(value, info.classes)
        if found is not None:
            return found
        shown = ", ".join(info.classes[:12]) + (", ..." if len(info.classes) > 12 else "")
        raise ValueError(f"there is no class '{name}' (there are: {shown})")

    def describe_labels(self, values: Tensor, mask: Tensor | None, info: TargetInfo) -> str:
        parts = zip(info.classes, _counts(values, mask).tolist(), strict=True)
        return ", ".join(f"{c} {n:.6g}" for c, n in parts if n)

    def class_probabilities(self, values: Tensor, info: TargetInfo) -> Tensor | None:
        return values

    def describe_output(self, info: TargetInfo) -> str:
        said = f"probabilities of {', '.join(info.classes)}; {_how_written(info.classes)}"
        return "; ".join(filter(None, [info.description, said]))

    def written(self, values: np.ndarray, info: TargetInfo) -> dict[str, np.ndarray]:
        return {f"{info.name}_class": np.array(info.classes)[values.argmax(1)]}

    def loss(self, name: str, arguments: dict[str, Any], info: TargetInfo, label: Any) -> Loss:
        import torch

        counts = _counts(label.values, label.mask)
        if not self.fixed_classes:
            self._miss_classes(counts, info)
        wanted = arguments.get("class_weights")
        weights = torch.ones(len(info.classes), dtype=torch.float64)
        if wanted == "balanced":
            present = counts > 0
            weights[present] = counts.sum() / (present.sum() * counts[present])
        elif isinstance(wanted, dict):
            unknown = [c for c in wanted if c not in info.classes]
            if unknown:
                raise TargetError(
                    f"loss of '{info.name}': class_weights names '{unknown[0]}', which is no class "
                    f"({', '.join(info.classes)})"
                )
            for c, weight in wanted.items():
                weights[info.classes.index(c)] = weight
        smoothing = float(arguments.get("label_smoothing", 0.0))

        def cross_entropy(
            prediction: Tensor, label: Tensor, mask: Tensor | None
        ) -> tuple[Tensor, Tensor | float]:
            weighted = label * weights.to(label)
            present = weighted.sum(1) if mask is None else weighted.sum(1) * mask[:, 0]
            if smoothing:
                weighted = (1 - smoothing) * weighted
                weighted = weighted + smoothing * weights.to(label) / len(weights)
            each = -(weighted * torch.log_softmax(prediction, dim=1)).sum(1)
            if mask is not None:
                each = each * mask[:, 0]
            return each.sum(), present.sum()

        return cross_entropy

    def _miss_classes(self, counts: Tensor, info: TargetInfo) -> None:
        """Warn of classes no label is of; DataError where the options name them."""
        never = [c for c, n in zip(info.classes, counts.tolist(), strict=True) if n == 0]
        if not never:
            return
        others = f" (nor do {len(never) - 1} others)" if len(never) > 1 else ""
        found = (
            f"target '{info.name}': the class '{never[0]}' never occurs in the training set{others}"
        )
        if ClassesArguments.model_validate(info.extra).names is not None:
            raise DataError(
                f"{found}; leave it out of the names, or split the data so that it does"
            )
        log.warning("%s: the model cannot learn it", found)

    # Sums: the confusion matrix (label, prediction), hits among the top 5, cross entropy

    def metric_size(self, info: TargetInfo) -> int:
        return len(info.classes) ** 2 + 2

    def metric_sums(
        self, prediction: Tensor, label: Tensor, mask: Tensor | None, info: TargetInfo
    ) -> Tensor:
        import torch

        if mask is not None:
            prediction, label = prediction[mask[:, 0]], label[mask[:, 0]]
        prediction, label = prediction.to(torch.float64), label.to(torch.float64)
        n = len(info.classes)
        truth = label.argmax(1)
        confusion = torch.bincount(truth * n + prediction.argmax(1), minlength=n * n)
        best = prediction.topk(min(TOP, n), dim=1).indices
        hits = (best == truth[:, None]).any(1).sum()
        entropy = -(label * prediction.clamp(min=TINY).log()).sum()
        return torch.cat([confusion.to(torch.float64), torch.stack([hits.double(), entropy])])

    def confusion(self, sums: Tensor, info: TargetInfo) -> np.ndarray:
        n = len(info.classes)
        matrix: np.ndarray = sums[: n * n].reshape(n, n).cpu().numpy()
        return matrix

    def metrics(self, sums: Tensor, info: TargetInfo) -> dict[str, float]:
        matrix = self.confusion(sums, info)
        hits, entropy = sums[-2:].tolist()
        count = matrix.sum()
        if count == 0:
            return {"count": 0.0}
        right, true, called = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        occurs = true > 0
        f1 = 2 * right / np.maximum(true + called, 1)
        found = {
            "accuracy": float(right.sum() / count),
            "balanced accuracy": float((right[occurs] / true[occurs]).mean()),
            "F1": float(f1[occurs | (called > 0)].mean()),
        }
        if len(info.classes) > TOP:
            found["top-5 accuracy"] = hits / count
        return {**found, "cross entropy": entropy / count, "count": float(count)}

    def finish(self, info: TargetInfo) -> nn.Module:
        import torch

        return torch.nn.Softmax(dim=1)


class Binary(Classification):
    """Yes or no, once or ``num_subtargets`` times: 0 and 1, false and true, or two names.

    The model gives the log-odds of 1, predictions are its probability.
    """

    kind = "binary"
    arguments = BinaryArguments
    losses = ("binary_cross_entropy",)
    shown = ("accuracy", "F1", "ROC AUC")

    def complete(self, info: TargetInfo) -> TargetInfo:
        arguments = BinaryArguments.model_validate(info.extra)
        names = info.classes
        if arguments.names is not None:
            names = tuple(_name(value) for value in arguments.names)
        return replace(info, classes=names)

    def classes_in(self, values: Iterable[Any]) -> tuple[str, ...]:
        found: set[str] = set()
        for value in values:
            array = np.asarray(value)
            if array.dtype.kind == "f":  # probabilities, or NaN for missing ones
                continue
            found.update(_name(one) for one in array.ravel().tolist())
        if found <= {"0", "1"}:
            return ("0", "1")
        if found <= {"false", "true"}:
            return ("false", "true")
        names = tuple(sorted(found))
        if len(names) != 2:
            raise ValueError(
                f"a binary target has two classes, the training set has {len(names)}: "
                f"{', '.join(names[:8])}"
            )
        return names

    def row(self, value: Any, info: TargetInfo, structure: Frame) -> np.ndarray:
        rows = len(structure.numbers) if info.per_atom else 1
        array = np.asarray(value)
        if array.size != rows * info.width:
            raise ValueError(f"it has shape {array.shape}, expected {rows} x {info.width}")
        result = np.empty(array.size)
        for k, one in enumerate(array.ravel().tolist()):
            found = _position(one, info.classes)
            if found is None and isinstance(one, bool):
                found = _position(int(one), info.classes)
            if found is not None:
                result[k] = found
            elif isinstance(one, float) and (np.isnan(one) or 0 < one < 1):
                result[k] = one  # missing, or a probability
            else:
                names = " nor ".join(info.classes)
                also = "" if _whole_numbers(info.classes) else " nor 0 nor 1"
                raise ValueError(f"'{_name(one)}' is neither {names}{also}, and no probability")
        return result.reshape(rows, info.width)

    def describe_labels(self, values: Tensor, mask: Tensor | None, info: TargetInfo) -> str:
        n = values.numel() if mask is None else mask.sum()
        return f"{_counts(values, mask).sum():.6g} of {n:.6g} are {info.classes[1]}"

    def class_probabilities(self, values: Tensor, info: TargetInfo) -> Tensor | None:
        import torch

        return torch.cat([1 - values, values], 1) if info.width == 1 else None

    def describe_output(self, info: TargetInfo) -> str:
        said = f"probability of {', '.join(info.classes[1:])}; {_how_written(info.classes)}"
        return "; ".join(filter(None, [info.description, said]))

    def written(self, values: np.ndarray, info: TargetInfo) -> dict[str, np.ndarray]:
        if info.width > 1:
            return {}
        return {f"{info.name}_class": np.array(info.classes)[(values[:, 0] > 0.5).astype(int)]}

    def loss(self, name: str, arguments: dict[str, Any], info: TargetInfo, label: Any) -> Loss:
        import torch

        from atomtrain.losses import pointwise

        positive = arguments.get("positive_weight", 1.0)
        if positive == "balanced":
            ones = _counts(label.values, label.mask)
            total = label.values.shape[0] if label.mask is None else label.mask.sum(0)
            positive = (total - ones) / ones.clamp(min=1)
        weight = torch.as_tensor(positive, dtype=torch.float64)

        def each(prediction: Tensor, label: Tensor) -> Tensor:
            return torch.nn.functional.binary_cross_entropy_with_logits(
                prediction, label, pos_weight=weight.to(prediction), reduction="none"
            )

        return pointwise(each)

    # Sums: histograms of log-odds for labels 1 and 0, then true positives and the like, entropy

    def metric_size(self, info: TargetInfo) -> int:
        return 2 * BINS + 5

    def metric_sums(
        self, prediction: Tensor, label: Tensor, mask: Tensor | None, info: TargetInfo
    ) -> Tensor:
        import torch

        if mask is not None:
            prediction, label = prediction[mask], label[mask]
        p = prediction.flatten().to(torch.float64).clamp(TINY, 1 - TINY)
        y = label.flatten().to(torch.float64)
        odds = torch.logit(p).clamp(-20, 20)
        bins = ((odds + 20) / 40 * (BINS - 1)).round().to(torch.int64)
        true = y > 0.5
        called = p > 0.5
        entropy = -(y * p.log() + (1 - y) * (1 - p).log()).sum()
        return torch.cat(
            [
                torch.bincount(bins[true], minlength=BINS).double(),
                torch.bincount(bins[~true], minlength=BINS).double(),
                torch.stack(
                    [
                        (true & called).sum().double(),
                        (~true & called).sum().double(),
                        (true & ~called).sum().double(),
                        (~true & ~called).sum().double(),
                        entropy,
                    ]
                ),
            ]
        )

    def confusion(self, sums: Tensor, info: TargetInfo) -> np.ndarray:
        right, false, missed, none = sums[-5:-1].tolist()
        return np.array([[none, false], [missed, right]])

    def metrics(self, sums: Tensor, info: TargetInfo) -> dict[str, float]:
        right, false, missed, none, entropy = sums[-5:].tolist()
        count = right + false + missed + none
        if count == 0:
            return {"count": 0.0}
        ones, zeros = sums[:BINS], sums[BINS : 2 * BINS]
        found = {
            "accuracy": (right + none) / count,
            "F1": 2 * right / max(2 * right + false + missed, 1.0),
        }
        if ones.sum() > 0 and zeros.sum() > 0:
            recalls = (right / (right + missed), none / (none + false))
            found["balanced accuracy"] = sum(recalls) / 2
            below = zeros.cumsum(0) - 0.5 * zeros  # ties count half
            found["ROC AUC"] = float((ones * below).sum() / (ones.sum() * zeros.sum()))
        return {**found, "cross entropy": entropy / count, "count": count}

    def finish(self, info: TargetInfo) -> nn.Module:
        import torch

        return torch.nn.Sigmoid()


def _name(value: Any) -> str:
    """A class as text: integers without a point, booleans in lower case."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _position(value: Any, classes: Sequence[str]) -> int | None:
    """Which of the ``classes`` a label means; None if it means none.

    A label is the name of a class. Where no name is a whole number, whole numbers are positions.
    """
    name = _name(value)
    if name in classes:
        return classes.index(name)
    meant = [k for k, one in enumerate(classes) if _meaning(one) == _meaning(name)]
    if len(meant) == 1:
        return meant[0]
    if _is_integer(name) and 0 <= int(name) < len(classes) and not _whole_numbers(classes):
        return int(name)
    return None


def _whole_numbers(classes: Sequence[str]) -> bool:
    return any(_is_integer(name) for name in classes)


def _how_written(classes: Sequence[str]) -> str:
    """What labels of these classes are in data."""
    number = "" if _whole_numbers(classes) else " or, as a number, its position from 0"
    return f"in data, a class is its name{number}"


def _meaning(name: str) -> str | float:
    """What YAML and extended xyz make of a word: T is true, and 1e2 is 100."""
    if NUMBER.fullmatch(name):
        return float(name)
    word = name.lower()
    return "true" if word in TRUE else "false" if word in FALSE else name


def _is_integer(name: str) -> bool:
    return name.isascii() and name.lstrip("-").isdigit()


def _whole(array: np.ndarray) -> bool:
    finite = array[np.isfinite(array)]
    return bool((finite == np.round(finite)).all()) and not _one_hot(array)


def _one_hot(array: np.ndarray) -> bool:
    """A vector with a single 1 and zeros: probabilities rather than classes of atoms."""
    return (
        array.ndim == 1
        and len(array) > 1
        and bool((np.sort(array)[:-1] == 0).all())
        and bool(array.max() == 1)
    )


def _counts(values: Tensor, mask: Tensor | None) -> Tensor:
    """Sum of the labels in each column."""
    return (values if mask is None else values * mask).sum(0)
