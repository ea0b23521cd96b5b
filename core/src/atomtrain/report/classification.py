"""What a classification got right, for people to look at: tables and pictures of all sets.

Pictures need matplotlib; without it the tables alone are written.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atomtrain.files import file_stem, writing
from atomtrain.targets import DatasetInfo
from atomtrain.training.evaluate import Samples
from atomtrain.training.units import titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger("atomtrain")
BINS = 10
MOST_CLASSES = 60
"""classes of which a picture of the confusion matrix can show no more"""


@dataclass(frozen=True)
class Classified:
    """One target on one set: ``labels`` and ``probabilities [n, n_classes]``, NaN without a label.

    ``confusion [n_classes, n_classes]``: rows are labels, columns predictions. ``features [n, width]``
    where the model gives some for the same structures, else None.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    confusion: np.ndarray
    features: np.ndarray | None = None

    @property
    def there(self) -> np.ndarray:
        """Which have a label, ``[n]``."""
        known: np.ndarray = ~np.isnan(self.labels).any(1)
        return known

    def calibration(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean probability, frequency and number of samples per bin of probability, ``[BINS]``.

        The probability is that of the predicted class, the frequency how often it is the label
        (for soft labels: the mean of what they say). NaN in empty bins.
        """
        labels, probabilities = self.labels[self.there], self.probabilities[self.there]
        called = probabilities.argmax(1)
        rows = np.arange(len(called))
        confidence, right = probabilities[rows, called], labels[rows, called]
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        count = np.bincount(bins, minlength=BINS)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(bins, confidence, BINS) / count
            frequency = np.bincount(bins, right, BINS) / count
        return mean, frequency, count

    def calibration_error(self) -> float:
        """Mean distance of probability and frequency over the samples."""
        mean, frequency, count = self.calibration()
        return float(np.nansum(count * abs(mean - frequency)) / max(count.sum(), 1))


def classified(
    samples: Samples, confusions: Mapping[str, np.ndarray], info: DatasetInfo
) -> dict[str, Classified]:
    """The classifications of a set by target, with the features of structures if there are any.

    ``confusions`` are as of :meth:`atomtrain.training.metrics.ErrorSums.confusions`.
    """
    features: np.ndarray | None = None
    if "feature" in samples.features:
        features = torch.cat(samples.features["feature"]).double().numpy()
    found: dict[str, Classified] = {}
    for name, labels in samples.labels.items():
        own = None if info.targets[name].per_atom else features
        values, probabilities = (
            torch.cat(parts).double().numpy() for parts in (labels, samples.probabilities[name])
        )
        found[name] = Classified(values, probabilities, confusions[name], own)
    return found


def write_confusions(
    directory: Path, name: str, confusions: Mapping[str, np.ndarray], info: DatasetInfo
) -> None:
    """``confusion_<target>_<name>.csv`` of a set: a row per class of the labels, a column per prediction."""
    called = titles(info)
    for target, matrix in confusions.items():
        classes = info.targets[target].classes
        stem = file_stem(called[target])
        path = directory / f"confusion_{stem}_{name}.csv"
        with writing(path), open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["label / predicted", *classes])
            for label, row in zip(classes, matrix.tolist(), strict=True):
                writer.writerow([label, *row])


def write_reports(
    directory: Path, sets: Mapping[str, Mapping[str, Classified]], info: DatasetInfo
) -> list[Path]:
    """Tables and pictures of every classification; ``sets`` by name, then by target.

    Gives the pictures that were written.
    """
    written: list[Path] = []
    called = titles(info)
    targets = list(dict.fromkeys(name for found in sets.values() for name in found))
    for target in targets:
        own = {name: found[target] for name, found in sets.items() if target in found}
        own = {name: one for name, one in own.items() if one.there.any()}
        if not own:
            continue
        classes = info.targets[target].classes or ("0", "1")
        stem = file_stem(called[target])
        _write_classes(directory / f"classes_{stem}.csv", own, classes)
        for name, one in own.items():
            log.info(
                f"{called[target]}: calibration error on the {name} set {one.calibration_error():.3f}"
            )
        try:
            written += _pictures(directory, stem, target, own, classes)
        except Exception as error:  # of a plotting library; the training is done and saved
            log.warning(f"pictures of '{target}' failed: {type(error).__name__}: {error}")
    return written


def _write_classes(path: Path, sets: Mapping[str, Classified], classes: Sequence[str]) -> None:
    """CSV: precision, recall and F1 of every class in every set."""
    with writing(path), open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "class", "samples", "precision", "recall", "F1"])
        for name, one in sets.items():
            matrix = one.confusion
            right, true, called = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
            for k, title in enumerate(classes):
                shares = [
                    right[k] / called[k] if called[k] else "",
                    right[k] / true[k] if true[k] else "",
                    2 * right[k] / (true[k] + called[k]) if true[k] + called[k] else "",
                ]
                said = [f"{s:.6g}" if s != "" else "" for s in shares]
                writer.writerow([name, title, int(true[k]), *said])


def _pictures(
    directory: Path,
    stem: str,
    target: str,
    sets: Mapping[str, Classified],
    classes: Sequence[str],
) -> list[Path]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.info(f"no pictures of '{target}': install matplotlib to get them")
        return []
    written = []

    def save(figure: Figure, what: str) -> None:
        path = directory / f"{what}_{stem}.png"
        figure.savefig(path, dpi=120)
        written.append(path)

    if len(classes) <= MOST_CLASSES:
        side = 2.2 + 0.3 * len(classes)
        figure = Figure(figsize=(side * len(sets), side), layout="constrained")
        places = figure.subplots(1, len(sets), squeeze=False)[0]
        for axes, (name, one) in zip(places, sets.items(), strict=True):
            _draw_confusion(axes, one.confusion, classes, f"{target}, {name}")
        save(figure, "confusion")

    figure = Figure(figsize=(4, 4), layout="constrained")
    _draw_reliability(figure.subplots(), sets, target)
    save(figure, "reliability")

    if all(one.features is not None and one.features.shape[1] in (1, 2) for one in sets.values()):
        figure = Figure(figsize=(5.5, 4.5), layout="constrained")
        _draw_map(figure.subplots(), sets, classes, target)
        save(figure, "map")
    return written


def _draw_confusion(axes: Axes, matrix: np.ndarray, classes: Sequence[str], title: str) -> None:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set(title=title, xlabel="predicted", ylabel="label")
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 20:
        for i, j in np.ndindex(*matrix.shape):
            if matrix[i, j]:
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(matrix[i, j]), ha="center", va="center", color=colour, size=7)


def _draw_reliability(axes: Axes, sets: Mapping[str, Classified], title: str) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="dashed")
    for name, one in sets.items():
        mean, frequency, count = one.calibration()
        there = count > 0
        label = f"{name} (error {one.calibration_error():.3f})"
        axes.plot(mean[there], frequency[there], marker="o", markersize=4, label=label)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), title=title)
    axes.set(xlabel="probability of the predicted class", ylabel="how often it is the label")
    axes.legend(loc="upper left", fontsize=8)


def _draw_map(
    axes: Axes, sets: Mapping[str, Classified], classes: Sequence[str], title: str
) -> None:
    from matplotlib import colormaps

    colours: Any = colormaps["tab10" if len(classes) <= 10 else "tab20"]
    markers = dict(zip(sets, (".", "+", "x"), strict=False))
    rng = np.random.default_rng(0)
    for name, one in sets.items():
        assert one.features is not None
        points, truth = one.features[one.there], one.labels[one.there].argmax(1)
        if points.shape[1] == 1:  # one coordinate: spread out, so that points can be seen
            points = np.concatenate([points, rng.random(points.shape)], axis=1)
        for k, label in enumerate(classes):
            own = points[truth == k]
            first = name == next(iter(sets))
            axes.scatter(
                own[:, 0],
                own[:, 1],
                s=14,
                marker=markers[name],
                color=colours(k % colours.N),
                linewidths=0.7,
                label=label if first and len(classes) <= 20 else None,
            )
    said = ", ".join(f"{marker} {name}" for name, marker in markers.items())
    axes.set(title=f"{title} ({said})", xlabel="feature 1", ylabel="feature 2")
    if len(classes) <= 20:
        axes.legend(fontsize=8, loc="best")
