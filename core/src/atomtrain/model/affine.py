"""Composition and scale of a target: what a network's outputs are multiplied by, and what is added.

Both are fitted to the training labels in float64. The composition of a per-structure target is a sum of one
number per atomic type (least squares); that of a per-atom target the mean over the atoms of each type. Only
invariant blocks have one. The scale is the root mean square of what is left: per atom for per-structure
targets, by type for per-atom ones. Targets of structures that are no sums over atoms (means, maxima) have one
constant instead. Both end in an :class:`Affine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import List

import torch
from torch import Tensor

from atomtrain.graph import sum_over_structures
from atomtrain.model.base import InFloat64
from atomtrain.targets import TargetInfo

NEGLIGIBLE = 1e-9
"""A residual this small relative to its label is rounding, not something to be learnt."""


class Affine(InFloat64):
    """Scale and shift of one target, by atomic type: ``physical = output * scale + shift``.

    ``scale`` and ``shift`` are ``[n_types, n_properties]`` with the properties of all blocks side by
    side, in float64: totals of thousands of eV would lose meV in float32. ``reference [n_types]``
    is the part of the scale that the loss divides by.
    """

    def __init__(self, target: TargetInfo, n_types: int) -> None:
        super().__init__()
        self.offsets: List[int] = [0, *(properties.stop for _, _, properties in target.parts)]
        width = self.offsets[-1]
        self.register_buffer("scale", torch.ones(n_types, width, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(n_types, width, dtype=torch.float64))
        self.register_buffer("reference", torch.ones(n_types, dtype=torch.float64))
        self.scale: Tensor
        self.shift: Tensor
        self.reference: Tensor

    def forward(self, blocks: List[Tensor], type_index: Tensor) -> List[Tensor]:
        """Physical blocks ``[n_atoms, *components, n_properties]`` in float64."""
        scale = self.scale.index_select(0, type_index)
        shift = self.shift.index_select(0, type_index)
        physical: List[Tensor] = []
        for k in range(len(blocks)):
            block = blocks[k]
            start, stop = self.offsets[k], self.offsets[k + 1]
            block_scale, block_shift = scale, shift
            if len(blocks) > 1:
                block_scale, block_shift = scale[:, start:stop], shift[:, start:stop]
            for _ in range(block.dim() - 2):  # broadcast over the component axes
                block_scale, block_shift = block_scale.unsqueeze(1), block_shift.unsqueeze(1)
            physical.append(torch.addcmul(block_shift, block.to(torch.float64), block_scale))
        return physical


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
    fixed = fixed or {}
    given = torch.zeros(samples.n_types, dtype=torch.float64)
    for index, value in fixed.items():
        given[index] = value
    free = [t for t in range(samples.n_types) if t not in fixed]
    composition = None if target.per_atom else samples.composition
    for block, columns, properties in target.parts:
        if not block.invariant:
            continue
        values, mask = samples.values[:, columns], samples.mask[:, columns]
        weights = given[:, None].repeat(1, block.n_properties)
        if composition is not None and free:
            weights[free] = _least_squares(composition, free, values, mask, given)
        elif composition is None:
            for t in free:
                here = mask & (samples.type_index == t)[:, None]
                weights[t] = (values * here).sum(0) / here.sum(0).clamp(min=1)
        affine.shift[:, properties] = weights.to(affine.shift.device)


def _least_squares(
    composition: Tensor, free: list[int], values: Tensor, mask: Tensor, given: Tensor
) -> Tensor:
    """``[n_free, n_columns]``: what the ``free`` types add to totals; ``given [n_types]`` of the others."""
    solved = torch.zeros(len(free), values.shape[1], dtype=torch.float64)
    # columns with labels for the same structures have one matrix
    patterns, which = torch.unique(mask, dim=1, return_inverse=True)
    for k in range(patterns.shape[1]):
        here = patterns[:, k]
        same = (which == k).nonzero().squeeze(1)
        if bool(here.any()):
            counts = composition[here]
            rest = values[here][:, same] - (counts @ given)[:, None]
            # gelsd: the smallest solution where compositions cannot tell types apart
            solved[:, same] = torch.linalg.lstsq(counts[:, free], rest, driver="gelsd").solution
    return solved


def fit_constant(affine: Affine, samples: Samples, fixed: float | None = None) -> None:
    """Set ``affine.shift`` of a target that is no sum over atoms: the mean label, or ``fixed``."""
    n = samples.mask.sum(0).clamp(min=1)
    mean = (samples.values * samples.mask).sum(0) / n
    constant = mean if fixed is None else torch.full_like(mean, fixed)
    affine.shift.copy_(constant.expand_as(affine.shift))


def residual(affine: Affine, target: TargetInfo, samples: Samples) -> Tensor:
    """Labels minus the composition, ``[n_samples, width]``."""
    shift = _per_column(affine.shift.cpu(), target)  # [n_types, width]
    if target.per_atom:
        return samples.values - shift.index_select(0, samples.type_index)
    if target.pooled:
        return samples.values - shift[:1]
    return samples.values - samples.composition @ shift


def fit_scale(
    affine: Affine,
    target: TargetInfo,
    samples: Samples,
    fixed: float | Mapping[int, float] | None = None,
    total: bool = False,
) -> None:
    """Set ``affine.reference`` (one scale per type) and ``affine.scale`` (per type and property).

    The reference is what labels are divided by in the loss; where a target has several properties
    or blocks, each also gets a relative scale, so that the network's outputs are all of order one.
    ``fixed`` are references that are not fitted (by index of the type: per-atom targets only).
    ``total``: the loss of this per-structure target is one of totals, and so is the scale.
    """
    left = residual(affine, target, samples)
    if not target.per_atom and not target.pooled and not total:
        left = left / samples.composition.sum(1, keepdim=True)
    negligible = NEGLIGIBLE * max(_rms(samples.values[samples.mask]), 1e-300)

    reference = torch.ones(samples.n_types, dtype=torch.float64)
    relative = torch.ones_like(affine.scale, device="cpu")
    for t in range(samples.n_types):
        # the types of a structure share one scale, and so do atoms whose mean is taken off
        if t > 0 and (not target.per_atom or target.zero_mean):
            reference[t], relative[t] = reference[0], relative[0]
            continue
        here = samples.mask
        if target.per_atom and not target.zero_mean:
            here = here & (samples.type_index == t).unsqueeze(1)
        size = _rms(left[here])
        reference[t] = size if size > negligible else 1.0
        if isinstance(fixed, (int, float)):
            reference[t] = float(fixed)
        elif fixed is not None and t in fixed:
            reference[t] = float(fixed[t])
        if relative.shape[1] > 1:
            sizes = _rms_of_properties(left, here, target)
            relative[t] = torch.where(sizes > negligible, sizes / reference[t], 1.0)
    affine.reference.copy_(reference)
    affine.scale.copy_(reference[:, None] * relative)


def normalise(affine: Affine, target: TargetInfo, samples: Samples) -> Tensor:
    """The labels a network is trained on: residual over reference, per atom where it is a sum."""
    left = residual(affine, target, samples)
    reference = affine.reference.cpu()
    if target.per_atom:
        left = left / reference.index_select(0, samples.type_index).unsqueeze(1)
    elif target.pooled:
        left = left / reference[0]
    else:
        left = left / (reference[0] * samples.composition.sum(1, keepdim=True))
    return torch.where(samples.mask, left, torch.zeros_like(left))


def _per_column(table: Tensor, target: TargetInfo) -> Tensor:
    """[n_types, n_properties of all blocks] -> [n_types, width], repeated over components."""
    parts = [
        table[:, properties].repeat(1, block.width // block.n_properties)
        for block, _, properties in target.parts
    ]
    return torch.cat(parts, dim=1)


def _rms_of_properties(values: Tensor, mask: Tensor, target: TargetInfo) -> Tensor:
    """Root mean squares ``[n_properties of all blocks]``, over samples and components."""
    parts = []
    for block, columns, _ in target.parts:
        here = mask[:, columns].reshape(-1, block.n_properties)
        squares = values[:, columns].reshape(-1, block.n_properties).square() * here
        parts.append((squares.sum(0) / here.sum(0).clamp(min=1)).sqrt())
    return torch.cat(parts)


def _rms(values: Tensor) -> float:
    return float(values.pow(2).mean().sqrt()) if values.numel() else 0.0
