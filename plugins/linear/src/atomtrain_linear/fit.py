"""Least squares from sums: normal equations, their solution for any ridge and weights, and how likely that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 512
"""columns of a Gram matrix that are added at a time: below the diagonal nothing is"""
CONSTANTS = 1e-6
"""ridge of the constants of elements, which the data determine: as much as equations need to be solved"""


class NormalEquations:
    """Gram matrices of rows and labels, float64, one for each kind of label: weights and ridge come later.

    ``sums``: for each kind a matrix ``[n + 1, n + 1]``, upper triangle, labels as the last column, and the number of
    rows. Both are sums over structures.
    """

    def __init__(self, n: int, kinds: list[str], device: torch.device) -> None:
        self.n, self.kinds = n, kinds
        self.sums: dict[str, Tensor] = {}
        for kind in kinds:
            gram = torch.zeros(n + 1, n + 1, dtype=torch.float64, device=device)
            self.sums |= {f"gram of {kind}": gram, f"number of {kind}": gram.new_zeros(1)}

    def add(self, kind: str, rows: Tensor, labels: Tensor) -> None:
        """Add ``rows [m, n]`` with their ``labels [m]``."""
        gram = self.sums[f"gram of {kind}"]
        self.sums[f"number of {kind}"] += len(labels)
        for part, label in zip(rows.split(2048), labels.split(2048), strict=True):
            x = torch.cat([part.to(gram.dtype), label.to(gram.dtype).unsqueeze(1)], 1)
            for first in range(0, self.n + 1, BLOCK):
                last = min(first + BLOCK, self.n + 1)
                gram[first:last, first:].addmm_(x[:, first:last].t(), x[:, first:])

    def weighted(self, weights: dict[str, float]) -> Weighted:
        """One set of equations: the mean of each kind's squares times its weight."""
        total = torch.zeros_like(self.sums[f"gram of {self.kinds[0]}"])
        number = 0.0
        for kind in self.kinds:
            n = float(self.sums[f"number of {kind}"])
            total.add_(self.sums[f"gram of {kind}"], alpha=weights[kind] / max(n, 1.0))
            number += n if weights[kind] > 0 else 0.0
        total = torch.triu(total)
        total += torch.triu(total, 1).t()
        return Weighted(total, number)


@dataclass
class Solution:
    """Coefficients, and what is known of them."""

    coefficients: Tensor
    """[n] float64"""
    factor: Tensor
    """[n, n], lower triangle: ``factor factor^T`` is the matrix of the equations, ridge and all"""
    ridge: float
    loss: float
    """without the ridge's part"""
    spread: float
    """deviation of what ``factor`` gives 1, as the labels of the training set say"""
    evidence: float
    """logarithm of the likelihood of the data, but for a constant (D. MacKay, doi 10.1162/neco.1992.4.3.415)"""


@dataclass
class Weighted:
    """Equations ``[n + 1, n + 1]`` that stand for a ``number`` of labels."""

    equations: Tensor
    number: float

    def solve(self, ridge: float, n_constants: int) -> Solution:
        """Coefficients with a penalty of ``ridge`` times their squares; the last ``n_constants`` are almost free.

        Where rounding leaves no solution the ridge is raised to the next power of ten that does.
        """
        n = len(self.equations) - 1
        right = self.equations[:n, n]
        penalty = torch.full_like(right, CONSTANTS)
        failed = torch.ones(())
        while int(failed) != 0:
            penalty[: n - n_constants] = ridge
            matrix = self.equations[:n, :n].clone()
            matrix.diagonal().add_(penalty)
            factor, failed = torch.linalg.cholesky_ex(matrix)
            ridge = ridge if int(failed) == 0 else 10.0 * ridge
        x = torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
        least = max(float(self.equations[n, n] - right @ x), 1e-300)
        loss = least - float((penalty * x.square()).sum())
        volume = 2.0 * float(factor.diagonal().log().sum()) - float(penalty.log().sum())
        evidence = -0.5 * (self.number * math.log(least) + volume)
        return Solution(x, factor, ridge, loss, math.sqrt(least / max(self.number, 1.0)), evidence)
