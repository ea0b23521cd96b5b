"""Forces and stress against differences of the energy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atomtrain.data import StructureStore
from atomtrain.data.store import concatenated
from atomtrain.verification.calls import GRADIENTS, ExportedFile
from atomtrain.verification.structures import moved

STEPS = {"forces": 0.005, "strain": 0.001}
"""Steps along a random direction: angstrom in each coordinate, and strain."""
SLOPE = 0.01
"""How far a derivative may be from the slope of the energy, as part of the gradient's norm,"""
SCATTER = 8.0
"""and how many standard errors of the slope, which come from the rounding of energies, on top."""
VAGUE = 0.2
"""Slopes known to no more than this part of the gradient's norm say nothing."""


class Lines:
    """Lines in random directions: one for each structure and kind of gradient, five points each.

    The fourth difference of five energies is what they are rounded by (a file in float32 may round by meV), and what
    the outer two change of the slope is more than its error for curvature: together they tell how well it is known.
    """

    def __init__(self, store: StructureStore, angstrom: float) -> None:
        random = torch.Generator().manual_seed(0)
        self.store = store
        self.steps = {"forces": STEPS["forces"] * angstrom, "strain": STEPS["strain"]}
        self.ways = {
            "forces": torch.randn(len(store.types), 3, generator=random, dtype=torch.float64),
            "strain": torch.randn(3 * len(store), 3, generator=random, dtype=torch.float64),
        }

    def energies(self, file: ExportedFile) -> dict[str, Tensor]:
        """Energies by name, ``[n_structures, 9]``: at the structure, and -2, -1, 1, 2 steps along each line."""
        points = []
        for k in range(len(self.store)):
            one = self.store.select(torch.tensor([k]))
            points.append(one)
            for kind, step in self.steps.items():
                way = self.ways[kind][self._rows(kind, k)]
                points += [moved(one, kind, n * step * way) for n in (-2, -1, 1, 2)]
        many = concatenated(points)
        found = file.call(many, torch.arange(len(many)), file.energies) if file.energies else {}
        return {name: energies.reshape(-1, 9) for name, energies in found.items()}

    def off(self, kind: str, energies: Tensor, gradient: Tensor, allowed: float) -> float | None:
        """How far a ``gradient`` (all rows) is from the slopes, as part of its norm: 0 where that may be rounding.

        ``energies`` are as of :meth:`energies`; numbers of the gradient may be off as ``allowed``. None where the
        slopes are known too badly to tell.
        """
        step = self.steps[kind]
        lines = energies[:, 1:].reshape(-1, len(GRADIENTS), 4)[:, GRADIENTS.index(kind)]
        fourth = lines @ torch.tensor([1.0, -4, -4, 1]).double() + 6 * energies[:, 0]
        slopes = lines @ torch.tensor([1.0, -8, 8, -1]).double() / (12 * step)
        curved = (slopes - (lines[:, 2] - lines[:, 1]) / (2 * step)).abs().tolist()
        least = 16 * torch.finfo(energies.dtype).eps * float(energies.abs().max())
        rounding = max(float(fourth.abs().max()) / math.sqrt(70), least)
        error = SCATTER * rounding * math.sqrt(130) / (12 * step)
        gradient = -gradient if kind == "forces" else gradient.reshape(-1, 3)
        worst = 0.0
        known = float(gradient.abs().max()) <= allowed  # there is nothing to know
        for k, slope in enumerate(slopes.tolist()):
            rows = self._rows(kind, k)
            if kind == "forces" and rows.stop - rows.start == 1:
                continue  # nothing moves against anything
            way, norm = self.ways[kind][rows], float(gradient[rows].norm())
            off = abs(float((gradient[rows] * way).sum()) - slope)
            unknown = error + curved[k]
            if not off <= SLOPE * norm + unknown + allowed * math.sqrt(way.numel()):
                worst = max(worst, off / max(norm, allowed, 1e-300))
            known |= unknown < VAGUE * norm
        return worst if known or worst > 0 else None

    def _rows(self, kind: str, k: int) -> slice:
        if kind == "strain":
            return slice(3 * k, 3 * k + 3)
        return slice(int(self.store.offsets[k]), int(self.store.offsets[k + 1]))
