"""Targets as metatensor maps: the labels of their blocks, and flat rows to maps and back.

What a map of a target looks like is metatomic's rule: key ``_`` (or ``o3_lambda`` and ``o3_sigma``),
samples ``system`` (and ``atom``), components ``xyz``, ``xyz_1`` and ``xyz_2`` or ``o3_mu``, and for
energies the gradients ``positions`` (minus the forces) and ``strain``.
"""

from __future__ import annotations

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from torch import Tensor

from atomtrain.targets.layout import Block, TargetInfo

_IRREP = ["o3_lambda", "o3_sigma"]


def map_labels(target: TargetInfo) -> tuple[Labels, list[list[Labels]], list[Labels]]:
    """Keys of the map, and components and properties of each of its blocks."""
    blocks = target.blocks
    keys = torch.tensor([[value for _, value in block.key] for block in blocks])
    return (
        Labels([name for name, _ in blocks[0].key], keys),
        [[_axis(name, size) for name, size in block.components] for block in blocks],
        [Labels.range(target.property_name, block.n_properties) for block in blocks],
    )


def to_map(
    target: TargetInfo,
    values: Tensor,
    n_atoms: Tensor,
    forces: Tensor | None = None,
    strain: Tensor | None = None,
    first: int = 0,
) -> TensorMap:
    """The map of structures with ``n_atoms [n]`` atoms, called system ``first``, ``first + 1``, ...

    ``values [n_samples, width]`` are flat rows (see :mod:`atomtrain.targets.layout`); ``forces
    [n_atoms, 3]`` and ``strain [n, 9]`` (dE/d(strain)) become the gradients of an energy.
    """
    structures = torch.arange(len(n_atoms))
    of_atom = torch.repeat_interleave(structures, n_atoms)
    atoms = torch.arange(len(of_atom)) - (n_atoms.cumsum(0) - n_atoms)[of_atom]
    samples = Labels("system", (first + structures)[:, None])
    if target.per_atom:
        samples = Labels(["system", "atom"], torch.stack([first + of_atom, atoms], dim=1))
    keys, components, properties = map_labels(target)
    made = []
    parts = values.split([block.width for block in target.blocks], dim=1)
    for block, part, axes, names in zip(target.blocks, parts, components, properties, strict=True):
        shaped = part.reshape(len(values), *block.shape).contiguous()
        made.append(TensorBlock(shaped, samples, axes, names))
    if forces is not None:
        rows = Labels(["sample", "atom"], torch.stack([of_atom, atoms], dim=1))
        gradient = (-forces).reshape(-1, 3, 1)
        made[0].add_gradient(
            "positions", TensorBlock(gradient, rows, [_axis("xyz", 3)], properties[0])
        )
    if strain is not None:
        axes = [_axis("xyz_1", 3), _axis("xyz_2", 3)]
        rows = Labels("sample", structures[:, None])
        gradient = strain.reshape(-1, 3, 3, 1).contiguous()
        made[0].add_gradient("strain", TensorBlock(gradient, rows, axes, properties[0]))
    return TensorMap(keys, made)


def block_counts(found: TensorMap) -> dict[tuple[int, ...], int]:
    """Number of properties of each block of a map, by ``(o3_lambda, o3_sigma)``, or by ``()`` where there
    is one block that is not called so. Empty for maps of another kind."""
    if sorted(found.keys.names) == _IRREP:
        keys = torch.stack([found.keys.column(name) for name in _IRREP], dim=1).tolist()
        return {tuple(key): len(found.block(k).properties) for k, key in enumerate(keys)}
    return {(): len(found.block(0).properties)} if len(found) == 1 else {}


def matching_blocks(target: TargetInfo, found: TensorMap) -> list[TensorBlock]:
    """The blocks of a map that was read, in the order of the target's.

    Raises ValueError, which says what was expected, unless keys, samples, components and the number
    of properties are the target's.
    """
    expected = target.blocks
    if target.layout == "spherical":
        blocks = _by_irrep(expected, found)
    elif len(found) == 1:
        blocks = [found.block(0)]
    else:
        raise ValueError(f"it has {len(found)} blocks, expected one")
    samples = ["system", "atom"] if target.per_atom else ["system"]
    for want, block in zip(expected, blocks, strict=True):
        title = f"block {want.title}: " if want.title else ""
        if list(block.samples.names) != samples:
            raise ValueError(
                f"{title}its samples are {' and '.join(block.samples.names)}, expected "
                f"{' and '.join(samples)} (sample_kind: {'atom' if target.per_atom else 'system'})"
            )
        axes = [(labels.names, labels.values[:, 0].tolist()) for labels in block.components]
        right = [([n], _axis(n, size).values[:, 0].tolist()) for n, size in want.components]
        if axes != right:
            raise ValueError(f"{title}its components are {_said(axes)}, expected {_said(right)}")
        if len(block.properties) != want.n_properties:
            raise ValueError(
                f"{title}it has {len(block.properties)} properties, expected {want.n_properties}"
            )
    return blocks


def _axis(name: str, size: int) -> Labels:
    """Cartesian axes count from 0, ``o3_mu`` from -lambda to lambda."""
    first = -(size // 2) if name == "o3_mu" else 0
    return Labels([name], torch.arange(first, first + size).reshape(-1, 1))


def _by_irrep(expected: tuple[Block, ...], found: TensorMap) -> list[TensorBlock]:
    if sorted(found.keys.names) != _IRREP:
        raise ValueError(
            f"its keys are {', '.join(found.keys.names)}, expected {', '.join(_IRREP)} (spherical)"
        )
    there = torch.stack([found.keys.column(name) for name in _IRREP], dim=1).tolist()
    wanted = [[value for _, value in block.key] for block in expected]
    if sorted(there) != sorted(wanted):
        said = [", ".join(f"l={a} s={b}" for a, b in sorted(keys)) for keys in (there, wanted)]
        raise ValueError(f"its blocks are {said[0]}, expected {said[1]}")
    return [found.block(there.index(key)) for key in wanted]


def _said(axes: list[tuple[list[str], list[int]]]) -> str:
    parts = [f"{'-'.join(n)} ({v[0]} to {v[-1]})" if v else f"{n} ()" for n, v in axes]
    return " x ".join(parts) or "none"
