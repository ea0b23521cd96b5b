"""A task of a package: grades in an order, such as 0 (soft) to 3 (hard)."""

from dataclasses import replace

import numpy as np
import torch

from atomtrain.contract import ComponentSpec, hookimpl
from atomtrain.losses import pointwise
from atomtrain.options import Section
from atomtrain.tasks import Task


@hookimpl
def register_tasks():
    yield ComponentSpec("ordinal", "grades in an order, one threshold between two", lambda: Ordinal)


class Arguments(Section):
    grades: int
    """How many grades there are."""


class Ordinal(Task):
    kind = "ordinal"
    arguments = Arguments
    pooling = "mean"
    losses = ("task",)
    shown = ("grade error", "accuracy")
    measure = "grade error"

    def complete(self, info):
        return replace(info, num_subtargets=info.extra["grades"] - 1)

    def row(self, value, info, structure):
        grade = int(value)
        if not 0 <= grade <= info.width:
            raise ValueError(f"grade {grade} is not one of 0 to {info.width}")
        return (np.arange(info.width) < grade).astype(float)[None]

    def loss(self, name, arguments, info, label):
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        return pointwise(lambda p, t: bce(p, t, reduction="none"))

    def metric_size(self, info):
        return 3

    def metric_sums(self, prediction, label, mask, info):
        off = ((prediction > 0.5).sum(1) - label.sum(1)).abs().double()
        return torch.stack([off.sum(), (off == 0).double().sum(), torch.ones_like(off).sum()])

    def metrics(self, sums, info):
        off, right, count = sums.tolist()
        return {"grade error": off / count, "accuracy": right / count, "count": count}

    def finish(self, info):
        return torch.nn.Sigmoid()
