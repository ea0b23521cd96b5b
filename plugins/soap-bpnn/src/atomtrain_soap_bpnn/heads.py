"""From hidden features to the blocks of one target.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import List, Tuple

import torch
from torch import Tensor, nn

from atomtrain.errors import TargetError
from atomtrain.targets import TargetInfo
from atomtrain_soap_bpnn.equivariant import EquivariantBasis, clebsch_gordan
from atomtrain_soap_bpnn.network import BySpecies, LinearBySpecies, activation


def irreps_of(target: TargetInfo) -> List[Tuple[int, int, int]]:
    """Degree, parity sign and number of the spherical tensors a target is made of.

    Raises TargetError for what SOAP-BPNN cannot predict.
    """
    if target.kind == "scalar":
        return [(0, 1, target.num_subtargets)]
    if target.kind == "spherical":
        if not target.irreps:
            raise TargetError(
                f"target '{target.name}': SOAP-BPNN predicts the same irreps for every type of "
                "atom; give 'irreps' as one list"
            )
        return [(i.o3_lambda, i.o3_sigma, i.num) for i in target.irreps]
    n = target.num_subtargets
    if target.kind == "cartesian" and target.rank == 1:
        return [(1, 1, n)]
    if target.kind == "cartesian" and target.rank == 2:
        symmetric = [(0, 1, n), (2, 1, n)]
        return symmetric if target.per_volume else [(0, 1, n), (1, -1, n), (2, 1, n)]
    raise TargetError(
        f"target '{target.name}': SOAP-BPNN predicts scalars, cartesian tensors of rank 1 and 2 "
        f"and spherical tensors, not type '{target.kind}'"
    )


class TensorBlock(nn.Module):
    """Invariant coefficients of hidden features times an equivariant basis: one spherical block."""

    def __init__(self, basis: EquivariantBasis, n_groups: int, n_in: int, n_tensors: int) -> None:
        super().__init__()
        self.scalar = basis.degree == 0 and not basis.pseudo
        self.n_tensors = n_tensors
        self.basis = basis
        self.linear = LinearBySpecies(n_groups, n_in, n_tensors * basis.size)

    def forward(
        self, x: Tensor, densities: List[Tensor], species: Tensor, layout: BySpecies
    ) -> Tensor:
        """``[n_groups, width, n_in] -> [n_atoms, 2 l + 1, n_tensors]``."""
        y = self.linear(x).flatten(0, 1).index_select(0, layout.places)
        if self.scalar:
            return y.unsqueeze(1)
        coefficients = y.reshape(y.shape[0], self.n_tensors, self.basis.size)
        basis = self.basis(densities, species, layout)
        return torch.bmm(basis, coefficients.transpose(1, 2))


class TargetHead(nn.Module):
    """All blocks of one target, behind one more hidden layer if ``mlp`` (scalars only)."""

    def __init__(
        self,
        target: TargetInfo,
        n_groups: int,
        n_in: int,
        mlp: bool,
        n_species: int,
        n_per_l: List[int],
        legacy: bool,
        add_lambda_basis: bool,
    ) -> None:
        super().__init__()
        if mlp and target.kind != "scalar":
            raise TargetError(
                f"architecture.model.heads: '{target.name}' is no scalar, and only scalars can "
                "have an mlp head; remove it or say 'linear'"
            )
        irreps = irreps_of(target)
        self.mlp = mlp
        self.n_in = n_in
        self.hidden = LinearBySpecies(n_groups if mlp else 0, n_in, n_in)
        self.blocks = nn.ModuleList()
        for degree, sigma, n_tensors in irreps:
            basis = EquivariantBasis(degree, sigma, n_species, n_per_l, legacy, add_lambda_basis)
            self.blocks.append(TensorBlock(basis, n_groups, n_in, n_tensors))
        self.scalar = target.kind == "scalar"
        self.single = self.scalar and target.num_subtargets == 1
        self.rank = target.rank if target.kind == "cartesian" else 0
        self.needs_density = any(degree > 0 or sigma < 0 for degree, sigma, _ in irreps)
        self.to_cartesian: Tensor
        degrees = [degree for degree, _, _ in irreps] if self.rank == 2 else []
        self.register_buffer("to_cartesian", cartesian_table(degrees), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """What the last layers see: ``[n_groups, width, n_in]``."""
        if self.mlp:
            return activation(self.hidden(x))
        return x

    def hidden_weights(self) -> List[Tensor]:
        """Weights of the layer of an mlp head, ``[n_groups, n_in, n_in]``, if there is one."""
        weights: List[Tensor] = []
        if self.mlp:
            weights.append(self.hidden.weight)
        return weights

    def last_weight(self) -> Tensor:
        """Weights of the first block's linear layer, ``[n_groups, n_out, n_in]``."""
        weights: List[Tensor] = []
        for block in self.blocks:
            linear = block.linear
            weights.append(linear.weight)  # type: ignore
        return weights[0]

    def forward(
        self, x: Tensor, densities: List[Tensor], species: Tensor, layout: BySpecies
    ) -> List[Tensor]:
        """Blocks ``[n_atoms, *components, n_properties]`` from ``features``."""
        found: List[Tensor] = []
        for block in self.blocks:
            found.append(block(x, densities, species, layout))
        if self.scalar:
            return [found[0].squeeze(1)]
        if self.rank == 1:
            y, z, x_ = found[0].unbind(1)
            return [torch.stack([x_, y, z], dim=1)]
        if self.rank == 2:
            spherical = torch.cat(found, dim=1)  # [n_atoms, 9 (6 if symmetric), n_properties]
            matrix = torch.matmul(self.to_cartesian, spherical)
            return [matrix.reshape(matrix.shape[0], 3, 3, matrix.shape[2])]
        return found


def cartesian_table(degrees: List[int]) -> Tensor:
    """``[9, sum of 2 l + 1]``: matrices, flattened row by row, from their spherical parts."""
    parts = [torch.zeros(9, 0, dtype=torch.float64)]
    xyz = torch.tensor([2, 0, 1])  # of y, z, x
    for degree in degrees:
        table = clebsch_gordan(1, 1, degree)[xyz][:, xyz]
        parts.append(table.reshape(9, 2 * degree + 1))
    return torch.cat(parts, dim=1)
