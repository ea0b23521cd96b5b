"""The radial functions of SOAP.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import List

import torch
from spex.radial import LaplacianEigenstates

from atomtrain_density.radial import RadialTable


class RadialBasis(RadialTable):
    """Laplacian eigenstates (doi 10.1063/5.0124363) times the cutoff function.

    torch-spex computes the splines' knots; ``sum(n_per_l)`` functions lie side by side.
    """

    def __init__(self, cutoff: float, width: float, max_angular: int, max_radial: int) -> None:
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)  # or torch-spex rounds the knots to float32
        try:
            basis = LaplacianEigenstates(
                cutoff=cutoff, max_radial=max_radial, max_angular=max_angular, trim=True
            )
        finally:
            torch.set_default_dtype(default)
        splines = basis.spliner
        super().__init__(
            splines.spline_values.to(torch.float64),
            splines.spline_derivatives.to(torch.float64),
            splines.spline_spacing,
            cutoff,
            width,
        )
        self.n_per_l: List[int] = [int(n) for n in basis.n_per_l]
        self.max_angular = max_angular
