"""A few small structures to try a model on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from atomtrain.data import Label, StructureStore
from atomtrain.data.store import concatenated, offsets_of
from atomtrain.model import ExtraInput

ATOMS = 60
"""Larger structures are cut down to so many atoms: more would find no more."""
RATTLED, STRAINED = 0.05, 0.01
"""What structures are moved (angstrom) and strained by, so that no force is zero by symmetry."""


def few_small(structures: StructureStore, angstrom: float) -> StructureStore:
    """The largest structure, the smallest, and the largest without an atom, so that there are always two sizes.

    ``angstrom`` is one in their unit of length.
    """
    order = structures.n_atoms.argsort(stable=True)
    chosen = dict.fromkeys([int(order[-1]), int(order[0])])
    few = [cut(structures.select(torch.tensor([k])), ATOMS) for k in chosen]
    n = len(few[0].types)
    if n > 1:
        few.append(cut(few[0], n - 1))
    return _rattled(concatenated(few), angstrom)


def cut(one: StructureStore, n: int) -> StructureStore:
    """The ``n`` atoms nearest to the first, with nothing where the others were."""
    near = (one.positions - one.positions[0]).norm(dim=1).argsort(stable=True)[:n].sort().values
    counts = torch.tensor([len(near)])
    extra = {name: v.take(near) if v.per_atom else v for name, v in one.extra.items()}
    return StructureStore(
        one.positions[near], one.types[near], one.cells, one.pbc, offsets_of(counts), extra=extra
    )


def made_up(
    atomic_types: list[int], angstrom: float, inputs: Mapping[str, ExtraInput] | None = None
) -> StructureStore:
    """Two molecules and a crystal of these elements: random places 2 angstrom or so from one another.

    Of the ``inputs`` they have one example after the other.
    """
    corners = torch.cartesian_prod(*3 * [torch.arange(2.0, dtype=torch.float64)])
    sizes, periodic = [5, 8, 8], torch.tensor([False, False, True])
    types = torch.tensor(atomic_types).repeat(sum(sizes))[: sum(sizes)]
    store = StructureStore(
        positions=2.0 * angstrom * torch.cat([corners[:n] for n in sizes]),
        types=types,
        cells=4.0 * angstrom * torch.eye(3, dtype=torch.float64) * periodic[:, None, None],
        pbc=periodic[:, None].repeat(1, 3),
        offsets=offsets_of(torch.tensor(sizes)),
    )
    for name, one in (inputs or {}).items():
        examples = torch.tensor(one.examples, dtype=torch.float64)
        rows = torch.arange(len(types) if one.per_atom else len(sizes))
        values = examples[rows % len(examples)].unsqueeze(1).repeat(1, one.width)
        store.extra[name] = Label(values, one.per_atom)
    return _rattled(store, angstrom)


def _rattled(store: StructureStore, angstrom: float) -> StructureStore:
    """Atoms moved and structures strained a little."""
    random = torch.Generator().manual_seed(1)
    moves = torch.rand(len(store.types), 3, generator=random, dtype=torch.float64) - 0.5
    strains = torch.rand(len(store), 3, 3, generator=random, dtype=torch.float64) - 0.5
    strains = torch.eye(3, dtype=torch.float64) + 2 * STRAINED * strains
    positions = torch.einsum("ai,aij->aj", store.positions, strains[store.structure])
    moved = positions + 2 * RATTLED * angstrom * moves
    return replace(store, positions=moved, cells=store.cells @ strains)


def moved(one: StructureStore, kind: str, way: Tensor) -> StructureStore:
    """A structure with its atoms moved by ``way [n_atoms, 3]``, or strained by ``way [3, 3]``."""
    if kind == "forces":
        return replace(one, positions=one.positions + way)
    strain = torch.eye(3, dtype=torch.float64) + way
    return replace(one, positions=one.positions @ strain, cells=one.cells @ strain)
