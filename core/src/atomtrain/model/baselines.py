"""Composition baseline and scale of a target, fitted to the training labels in float64.

The baseline of a per-structure target is a sum of one number per atomic type (least squares); that
of a per-atom target the mean over the atoms of each type. Only invariant blocks have one. The scale
is the root mean square of what is left: per atom for per-structure targets, by type for per-atom
ones. Both end in an :class:`~atomtrain.model.predictor.Affine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atomtrain.graph import sum_over_structures
from atomtrain.model.predictor import Affine
from atomtrain.targets import TargetInfo

NEGLIGIBLE = 1e-9
"""A residual this small relative to its label is rounding, not something to be learnt."""


@dataclass(frozen=True)
class Samples:
    """Labels of one target: ``values``, ``mask [n_samples, width]`` and which atoms they belong to.

    ``type_index [n_atoms]`` counts the types of the data set from 0, ``structure [n_atoms]`` says
    which structure an atom is in, ``n_types`` and ``n_structures`` how many there are.
    """

    values: Tensor
    mask: Tensor
    type_index: Tensor
    structure: Tensor
    n_types: int
    n_structures: int

    @property
    def composition(self) -> Tensor:
        """Atoms of each type in each structure, ``[n_structures, n_types]``."""
        one_hot = torch.nn.functional.one_hot(self.type_index, self.n_types).to(torch.float64)
        return sum_over_structures(one_hot, self.structure, self.n_structures)


def fit_composition(
    affine: Affine,
    target: TargetInfo,
    samples: Samples,
    fixed: Mapping[int, float] | None = None,
) -> None:
    """Set ``affine.shift``; ``fixed`` gives the values of some types (by index), not fitted."""
    fixed = dict(fixed or {})
    free = [t for t in range(samples.n_types) if t not in fixed]
    column = 0  # of the flat label
    prop = 0  # of the affine's tables
    for block in target.blocks:
        for p in range(block.n_properties):
            if block.invariant:
                weights = torch.zeros(samples.n_types, dtype=torch.float64)
                for index, value in fixed.items():
                    weights[index] = value
                here = samples.mask[:, column + p]
                y = samples.values[here, column + p]
                if target.per_atom:
                    kinds = samples.type_index[here]
                    for t in free:
                        if bool((kinds == t).any()):
                            weights[t] = y[kinds == t].mean()
                elif free and bool(here.any()):
                    counts = samples.composition[here]
                    rest = y - counts @ weights
                    # gelsd: the smallest solution where compositions cannot tell types apart
                    solution = torch.linalg.lstsq(
                        counts[:, free], rest.unsqueeze(1), driver="gelsd"
                    ).solution
                    weights[free] = solution.squeeze(1)
                affine.shift[:, prop + p] = weights.to(affine.shift.device)
        column += block.width
        prop += block.n_properties


def residual(affine: Affine, target: TargetInfo, samples: Samples) -> Tensor:
    """Labels minus the baseline, ``[n_samples, width]``."""
    shift = _per_column(affine.shift.cpu(), target)  # [n_types, width]
    if target.per_atom:
        return samples.values - shift.index_select(0, samples.type_index)
    return samples.values - samples.composition @ shift


def fit_scale(
    affine: Affine,
    target: TargetInfo,
    samples: Samples,
    fixed: float | Mapping[int, float] | None = None,
) -> None:
    """Set ``affine.reference`` (one scale per type) and ``affine.scale`` (per type and property).

    The reference is what labels are divided by in the loss; where a target has several properties
    or blocks, each also gets a relative scale, so that the network's outputs are all of order one.
    """
    left = residual(affine, target, samples)
    if not target.per_atom:
        left = left / samples.composition.sum(1, keepdim=True)
    size = _rms(samples.values[samples.mask])

    def scale_of(mask: Tensor) -> float:
        value = _rms(left[mask]) if bool(mask.any()) else 0.0
        return value if value > NEGLIGIBLE * max(size, 1e-300) else 1.0

    reference = torch.ones(samples.n_types, dtype=torch.float64)
    for t in range(samples.n_types):
        if isinstance(fixed, (int, float)):
            reference[t] = float(fixed)
        elif fixed is not None and t in fixed:
            reference[t] = float(fixed[t])
        elif target.per_atom:
            reference[t] = scale_of(samples.mask & (samples.type_index == t).unsqueeze(1))
        else:
            reference[t] = scale_of(samples.mask)
    affine.reference.copy_(reference)
    affine.scale.copy_(reference.unsqueeze(1).expand_as(affine.scale))

    if affine.scale.shape[1] == 1:
        return
    relative = left / (reference.index_select(0, samples.type_index).unsqueeze(1)
                       if target.per_atom else reference[0])  # fmt: skip
    column = prop = 0
    for block in target.blocks:
        n = block.n_properties
        columns = torch.arange(column, column + block.width).reshape(-1, n)
        for p in range(n):
            chosen, mask = relative[:, columns[:, p]], samples.mask[:, columns[:, p]]
            value = _rms(chosen[mask]) if bool(mask.any()) else 0.0
            if value > NEGLIGIBLE:
                affine.scale[:, prop + p] *= value
        column += block.width
        prop += n


def normalise(affine: Affine, target: TargetInfo, samples: Samples) -> Tensor:
    """The labels a network is trained on: residual over reference, per atom where it is a sum."""
    left = residual(affine, target, samples)
    reference = affine.reference.cpu()
    if target.per_atom:
        left = left / reference.index_select(0, samples.type_index).unsqueeze(1)
    else:
        left = left / (reference[0] * samples.composition.sum(1, keepdim=True))
    return torch.where(samples.mask, left, torch.zeros_like(left))


def _per_column(table: Tensor, target: TargetInfo) -> Tensor:
    """[n_types, n_properties of all blocks] -> [n_types, width], repeated over components."""
    parts = []
    start = 0
    for block in target.blocks:
        part = table[:, start : start + block.n_properties]
        parts.append(part.repeat(1, block.width // block.n_properties))
        start += block.n_properties
    return torch.cat(parts, dim=1)


def _rms(values: Tensor) -> float:
    return float(values.pow(2).mean().sqrt()) if values.numel() else 0.0
