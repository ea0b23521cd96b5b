"""Noise in positions, for denoising: the same for the same seed, whatever the batches are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from atomtrain.data.store import StructureStore
from atomtrain.graph import sum_over_structures
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.tasks import task_of


def input_of(target: TargetInfo) -> str:
    """The structures a model is to see for a target: as they are (empty), or ``noise <scale>`` added."""
    noise = task_of(target.kind).input_noise(target)
    return f"noise {noise:g}" if noise else ""


@dataclass(frozen=True)
class Noise:
    """Which targets are the noise itself, and how strong it is.

    ``scales``: standard deviation along each axis, by the model's input (:func:`input_of`);
    ``inputs``: that input, by target. ``fixed``: the noise is the same in every epoch.
    """

    scales: dict[str, float]
    inputs: dict[str, str]
    seed: int
    fixed: bool

    @classmethod
    def of(cls, info: DatasetInfo, seed: int, fixed: bool) -> Noise | None:
        """The noise a data set's targets ask for; None if none does."""
        inputs = {name: input_of(target) for name, target in info.targets.items()}
        inputs = {name: seen for name, seen in inputs.items() if seen}
        if not inputs:
            return None
        targets = {name: info.targets[name] for name in inputs}
        scales = {inputs[n]: task_of(t.kind).input_noise(t) for n, t in targets.items()}
        return cls(scales, inputs, seed, fixed)

    def draw(self, store: StructureStore, epoch: int) -> dict[str, Noisy]:
        """Noise for all structures in an epoch, by input.

        Normal along each axis; the mean over a structure is taken off, since moving all atoms
        alike is no change.
        """
        structure = torch.repeat_interleave(torch.arange(len(store)), store.n_atoms)
        found = {}
        for k, (name, scale) in enumerate(self.scales.items()):
            stream = [self.seed, k, 1, 0] if self.fixed else [self.seed, k, 0, epoch]
            unit = torch.from_numpy(_drawn(stream, store))
            mean = sum_over_structures(unit, structure, len(store)) / store.n_atoms[:, None]
            unit = unit - mean.index_select(0, structure)
            found[name] = Noisy(unit, replace(store, positions=store.positions + scale * unit))
        return found


def _drawn(stream: list[int], store: StructureStore) -> np.ndarray:
    """Normal numbers ``[n_atoms, 3]``; of a part of a set those that belong to its structures, whatever the part."""
    if store.ids is None:
        return np.random.default_rng(stream).standard_normal((len(store.types), 3))
    parts = [
        np.random.default_rng([*stream, number]).standard_normal((n, 3))
        for number, n in zip(store.ids.tolist(), store.n_atoms.tolist(), strict=True)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 3))


@dataclass(frozen=True)
class Noisy:
    """``unit [n_atoms, 3]``: the noise over its scale; ``store``: the structures with it."""

    unit: Tensor
    store: StructureStore
