"""Hessians against differences of forces."""

from __future__ import annotations

import torch
from torch import Tensor

from atomtrain.data import StructureStore
from atomtrain.targets import hessian_name
from atomtrain.verification.calls import ExportedFile
from atomtrain.verification.lines import SLOPE, STEPS, VAGUE
from atomtrain.verification.structures import cut, moved

ATOMS, CALLS = 12, 3
"""A Hessian takes as many passes as there are coordinates, and TorchScript rewrites what it has run."""


def curvature_off(
    file: ExportedFile, store: StructureStore, energy: str, allowed: float
) -> float | None:
    """How far the Hessian of ``energy``, times a direction, is from the change of forces along it.

    Of the smallest structure of the ``store`` with a second atom. As part of its norm: 0 where that may be rounding,
    forces being off as ``allowed``, and None where these are known too badly to tell, or all atoms are alone.
    """
    sizes = torch.where(store.n_atoms > 1, store.n_atoms, len(store.types) + 1)
    one = cut(store.select(sizes.argmin().reshape(1)), ATOMS)
    n, step = len(one.types), STEPS["forces"] * file.angstrom
    if n == 1:
        return None
    name = hessian_name(energy)
    only, output = torch.tensor([0]), {name: file.hessians[energy]}
    for _ in range(CALLS):
        blocks = file.call(one, only, output)[name]
    hessian = blocks.reshape(n, n, 3, 3).transpose(1, 2).reshape(3 * n, 3 * n)
    random = torch.Generator().manual_seed(0)
    way = torch.randn(n, 3, generator=random, dtype=torch.float64)
    found = (hessian @ way.flatten()).reshape(n, 3)

    def forces(steps: int) -> Tensor:
        there = moved(one, "forces", steps * step * way)
        return file.call(there, only, file.energies, gradients=True)[f"{energy}:forces"]

    narrow, wide = ((forces(-m) - forces(m)) / (2 * m * step) for m in (1, 2))
    wanted = (4 * narrow - wide) / 3
    norm, off = float(found.norm()), float((found - wanted).norm())
    unknown = float((wanted - narrow).norm()) + 2 * allowed * (3 * n) ** 0.5 / step
    if not off <= SLOPE * norm + unknown:
        return off / max(norm, allowed / step, 1e-300)
    return 0.0 if unknown < VAGUE * norm else None
