"""From hidden features, and the density where tensors are wanted, to the blocks of each target.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from collections.abc import Mapping
from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor, nn

from atomtrain.errors import DataError, TargetError
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain_density.elements import BySpecies, LinearBySpecies, activation
from atomtrain_density.tensors import EquivariantBasis, clebsch_gordan


def irreps_of(target: TargetInfo, architecture: str) -> List[Tuple[int, int, int]]:
    """Degree, parity sign and number of the spherical tensors a target is made of.

    Raises TargetError for what cannot be predicted; ``architecture`` is whose name it says.
    """
    if target.kind == "scalar":
        return [(0, 1, target.num_subtargets)]
    if target.kind == "spherical":
        if not target.irreps:
            raise TargetError(
                f"target '{target.name}': {architecture} predicts the same irreps for every type of "
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
        f"target '{target.name}': {architecture} predicts scalars, cartesian tensors of rank 1 and 2 "
        f"and spherical tensors, not type '{target.kind}'"
    )


def largest_degree(dataset_info: DatasetInfo, at_least: int, architecture: str) -> int:
    """Up to which degree a density has to go for the targets' tensors, and for what else needs it."""
    degrees = [at_least]
    for target in dataset_info.targets.values():
        for degree, sigma, _ in irreps_of(target, architecture):
            degrees.append(max(degree, 1) if degree or sigma < 0 else 0)
    return max(degrees)


def any_gradients(dataset_info: DatasetInfo) -> bool:
    """Whether forces or stress are wanted of any target."""
    return any(target.gradients for target in dataset_info.targets.values())


def refuse_new_elements(known: List[int], dataset_info: DatasetInfo, architecture: str) -> None:
    """DataError for elements that a model was not built for."""
    unknown = sorted(set(dataset_info.atomic_types) - set(known))
    if unknown:
        raise DataError(
            f"this {architecture} was built for the atomic numbers {known} and cannot "
            f"take {unknown} in; train anew for these elements"
        )


class HeadInputs(NamedTuple):
    """What the heads of all targets are made for."""

    n_groups: int
    """groups of atoms that have weights of their own: elements, or 1"""
    n_in: int
    """hidden features"""
    n_species: int
    """elements of the density"""
    n_per_l: List[int]
    """radial functions of each degree of the density"""
    apart: bool
    """whether tensors keep elements apart (:class:`DensityContraction`)"""
    with_density: bool
    """whether bases of tensors have a part of the density of their own degree"""


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
        inputs: HeadInputs,
        mlp: bool,
        architecture: str,
    ) -> None:
        super().__init__()
        if mlp and target.kind != "scalar":
            raise TargetError(
                f"architecture.model.heads: '{target.name}' is no scalar, and only scalars can "
                "have an mlp head; remove it or say 'linear'"
            )
        irreps = irreps_of(target, architecture)
        n_groups, n_in = inputs.n_groups, inputs.n_in
        self.mlp = mlp
        self.n_in = n_in
        self.hidden = LinearBySpecies(n_groups if mlp else 0, n_in, n_in)
        self.blocks = nn.ModuleList()
        for degree, sigma, n_tensors in irreps:
            of_density = (inputs.n_species, inputs.n_per_l, inputs.apart, inputs.with_density)
            basis = EquivariantBasis(degree, sigma, *of_density)
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


def add_heads(
    heads: nn.ModuleDict,
    dataset_info: DatasetInfo,
    inputs: HeadInputs,
    kinds: Mapping[str, str],
    architecture: str,
) -> None:
    """A head for each target that has none; those of ``kinds`` are ``mlp`` or ``linear`` (default)."""
    unknown = sorted(set(kinds) - set(dataset_info.targets))
    if unknown:
        raise TargetError(
            f"architecture.model.heads names {', '.join(unknown)}, which is no target (there "
            f"are {', '.join(dataset_info.targets)})"
        )
    for name, target in dataset_info.targets.items():
        if name not in heads:
            mlp = kinds.get(name, "linear") == "mlp"
            heads[name] = TargetHead(target, inputs, mlp, architecture)


def cartesian_table(degrees: List[int]) -> Tensor:
    """``[9, sum of 2 l + 1]``: matrices, flattened row by row, from their spherical parts."""
    parts = [torch.zeros(9, 0, dtype=torch.float64)]
    xyz = torch.tensor([2, 0, 1])  # of y, z, x
    for degree in degrees:
        table = clebsch_gordan(1, 1, degree)[xyz][:, xyz]
        parts.append(table.reshape(9, 2 * degree + 1))
    return torch.cat(parts, dim=1)
