"""Numbers: scalars, cartesian and spherical tensors. Composition, scale and errors are the core's."""

from __future__ import annotations

from atomtrain.tasks.base import Task

LOSSES = (
    "mse",
    "mae",
    "huber",
    "masked_mse",
    "masked_mae",
    "masked_huber",
    "shift_agnostic_mse",
)


class Scalar(Task):
    """One number, or ``num_subtargets`` of them."""

    kind = "scalar"
    scaled = True
    losses = LOSSES


class Cartesian(Task):
    """A vector or matrix in x, y, z."""

    kind = "cartesian"
    scaled = True
    losses = LOSSES


class Spherical(Task):
    """Irreducible spherical tensors."""

    kind = "spherical"
    scaled = True
    losses = LOSSES
