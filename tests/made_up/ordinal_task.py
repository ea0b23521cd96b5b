"""Tasks of a package: grades in an order, such as 0 (soft) to 2 (hard), and atoms that are moved back."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from atomtrain.contract import ComponentSpec, hookimpl
from atomtrain.losses import pointwise
from atomtrain.options import Section
from atomtrain.tasks import Task


@hookimpl
def register_tasks():
    yield ComponentSpec("ordinal", "grades in an order, one threshold between two", lambda: Ordinal)
    yield ComponentSpec("moved", "random displacements of atoms", lambda: Moved)


class Grades(Section):
    grades: int
    """How many grades there are."""


class Ordinal(Task):
    """Labels have a column for each threshold, 1 where the grade is above it: grade 1 of 0, 1, 2 is 1, 0."""

    kind = "ordinal"
    arguments = Grades
    pooling = "mean"
    losses = ("task",)
    shown = ("mae", "accuracy")
    measure = "mae"
    classification = True

    def complete(self, info):
        grades = info.extra["grades"]
        return replace(info, num_subtargets=grades - 1, classes=tuple(map(str, range(grades))))

    # labels

    def row(self, value, info, structure):
        grade = int(value)
        if not 0 <= grade <= info.width:
            raise ValueError(f"grade {grade} is not one of 0 to {info.width}")
        return (np.arange(info.width) < grade).astype(float)[None]

    def describe_labels(self, values, mask, info):
        there = values if mask is None else values[mask[:, 0]]
        counts = there.sum(1).long().bincount(minlength=len(info.classes)).tolist()
        return ", ".join(f"grade {c}: {n}" for c, n in zip(info.classes, counts, strict=True))

    # training

    def loss(self, name, arguments, info, label):
        return pointwise(lambda p, t: binary_cross_entropy_with_logits(p, t, reduction="none"))

    def metric_size(self, info):
        return len(info.classes) ** 2

    def metric_sums(self, prediction, label, mask, info):
        if mask is not None:
            prediction, label = prediction[mask[:, 0]], label[mask[:, 0]]
        truth, called = ((values > 0.5).sum(1) for values in (label, prediction))
        n = len(info.classes)
        return (truth * n + called).bincount(minlength=n * n).double()

    def confusion(self, sums, info):
        return sums.reshape(len(info.classes), -1).numpy()

    def metrics(self, sums, info):
        matrix = self.confusion(sums, info)
        grade, count = np.arange(len(matrix)), max(matrix.sum(), 1)
        off = abs(grade[:, None] - grade)
        right = matrix.trace()
        return {
            "mae": (off * matrix).sum() / count,
            "accuracy": right / count,
            "count": matrix.sum(),
        }

    def error_unit(self, info, length):
        return "grades"

    def class_probabilities(self, values, info):
        # what passes one threshold has passed those below; nothing passes the last, all pass the first
        passed = pad(pad(values.cummin(1).values, (1, 0), value=1.0), (0, 1), value=0.0)
        return passed[:, :-1] - passed[:, 1:]

    # prediction

    def finish(self, info):
        return torch.nn.Sigmoid()

    def describe_output(self, info):
        return f"probabilities of at least grade {', '.join(info.classes[1:])}"

    def written(self, values, info):
        return {info.name: (values > 0.5).sum(1), f"{info.name}_thresholds": values}


class Distance(Section):
    by: float
    """Standard deviation of the displacements along each axis, in the length unit of the data."""


class Moved(Task):
    """The model sees atoms that were displaced at random and says by how much; it needs no labels."""

    kind = "moved"
    arguments = Distance
    losses = ("mse", "mae")

    def complete(self, info):
        return replace(info, layout="cartesian", rank=1, per_atom=True)

    def computes_labels(self, info, given):
        return True

    def row(self, value, info, structure):
        return np.zeros((len(structure.numbers), 3))  # room for what is drawn with the batches

    def describe_labels(self, values, mask, info):
        return f"displacements of {info.extra['by']} along each axis"

    def input_noise(self, info):
        return info.extra["by"]

    def fixed_scale(self, info):
        return info.extra["by"]  # labels are drawn with a standard deviation of 1

    def error_unit(self, info, length):
        return length
