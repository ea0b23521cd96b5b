"""The packed store: any number of structures and their labels as flat tensors.

One structure is a slice, one batch a gather; there is no Python object per structure. Positions and
labels are float64 here and are converted when a batch is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from atomtrain.targets.units import conversion

if TYPE_CHECKING:
    from ase import Atoms


@dataclass
class Label:
    """A label of every sample, one flat row each (see :mod:`atomtrain.targets.layout`).

    ``values``: [n_samples, width] float64, where a sample is an atom (``per_atom``) or a structure.
    ``mask``: [n_samples, width] bool, True where the label is there; None means everywhere.
    Values under a False mask are zero, never NaN.
    """

    values: Tensor
    per_atom: bool
    mask: Tensor | None = None

    @classmethod
    def where(cls, values: Tensor, per_atom: bool, there: Tensor) -> Label:
        """A label that is masked unless it is ``there [n_samples, width]``."""
        return cls(values, per_atom, None if bool(there.all()) else there)

    @classmethod
    def joined(cls, labels: Sequence[Label]) -> Label:
        """The labels of several stores, one after the other."""
        values, there = [one.values for one in labels], [one.there for one in labels]
        return cls.where(torch.cat(values), labels[0].per_atom, torch.cat(there))

    @property
    def there(self) -> Tensor:
        """The mask, also where there is none."""
        return torch.ones_like(self.values, dtype=torch.bool) if self.mask is None else self.mask

    def to(self, dtype: torch.dtype) -> Label:
        """The same with values of another type."""
        return replace(self, values=self.values.to(dtype))

    def take(self, rows: Tensor) -> Label:
        """The label of these samples, in this order."""
        mask = None if self.mask is None else self.mask.index_select(0, rows)
        return Label(self.values.index_select(0, rows), self.per_atom, mask)


@dataclass(eq=False)
class StructureStore:
    """``n`` structures, flat.

    ``labels`` maps a target's name to its values and ``<name>:forces`` [n_atoms, 3] and
    ``<name>:strain`` [n_structures, 9] to the gradients of an energy. Forces are minus the
    gradient; strain is dE/d(strain) = volume x stress (ASE's sign), row-major.
    ``extra`` holds extra data (masks, extra model inputs) in the same form.
    ``origins`` names each structure for messages: (index of the file in ``files``, frame index).
    """

    positions: Tensor
    """[n_atoms, 3] float64"""
    types: Tensor
    """[n_atoms] int64"""
    cells: Tensor
    """[n_structures, 3, 3] float64"""
    pbc: Tensor
    """[n_structures, 3] bool"""
    offsets: Tensor
    """[n_structures + 1] int64: structure k has the atoms offsets[k]:offsets[k + 1]"""
    labels: dict[str, Label] = field(default_factory=dict)
    extra: dict[str, Label] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    origins: Tensor | None = None
    """[n_structures, 2] int64"""
    ids: Tensor | None = None
    """[n_structures] int64: their numbers in the set that they are a part of; None: counted from 0"""

    def __len__(self) -> int:
        return int(self.offsets.shape[0]) - 1

    @property
    def n_atoms(self) -> Tensor:
        """Atoms per structure, [n_structures] int64."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def structure(self) -> Tensor:
        """The structure each atom belongs to, [n_atoms] int64."""
        return torch.repeat_interleave(torch.arange(len(self)), self.n_atoms)

    @property
    def sample(self) -> StructureStore:
        """Structures that stand for all in statistics: all of them, where they are in memory."""
        return self

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        found: list[int] = self.types.unique().tolist()
        return found

    @property
    def fingerprint(self) -> str:
        """Hash of all structures with their labels."""
        return fingerprint(self)

    @cached_property
    def fingerprints(self) -> list[bytes]:
        """A hash of each structure: positions, elements, cell and periodicity, and what else belongs to all of it.

        The same atoms with another charge are another structure.
        """
        bounds = self.offsets.tolist()
        # plain bytes: slices of arrays would take most of the time
        positions, types, cells, pbc = (
            tensor.contiguous().numpy().data.cast("B")
            for tensor in (self.positions, self.types, self.cells, self.pbc)
        )
        found, states = [], self.states
        for k, (start, stop) in enumerate(pairwise(bounds)):
            digest = hashlib.blake2b(positions[24 * start : 24 * stop], digest_size=16)
            digest.update(types[8 * start : 8 * stop])
            digest.update(cells[72 * k : 72 * k + 72])
            digest.update(pbc[3 * k : 3 * k + 3])
            digest.update(states[k])
            found.append(digest.digest())
        return found

    @property
    def states(self) -> list[bytes]:
        """What the extra data say of each structure as a whole; empty where there are none."""
        rows = [v.values for _, v in sorted(self.extra.items()) if not v.per_atom]
        if not rows:
            return [b""] * len(self)
        return [row.tobytes() for row in torch.cat(rows, dim=1).contiguous().numpy()]

    def first_with(self, types: Sequence[int]) -> int:
        """The first structure that has an atom of one of these ``types``; one must have."""
        atom = int(torch.isin(self.types, torch.tensor(types)).nonzero()[0])
        return int(torch.searchsorted(self.offsets, atom, right=True)) - 1

    def origin(self, structure: int) -> str:
        """Where a structure came from, for messages."""
        if self.origins is None:
            return f"structure {structure}"
        file, frame = self.origins[structure].tolist()
        return f"structure {frame} of '{self.files[file]}'"

    def numbers(self, structure: int) -> dict[str, float]:
        """Extra data of a structure that are one number, and no mask, by name: ``charge``."""
        found = {k: v.values for k, v in self.extra.items() if not v.per_atom}
        return {
            name: float(values[structure, 0])
            for name, values in found.items()
            if values.shape[1] == 1 and not name.endswith("_mask")
        }

    def atoms(self, structure: int, length_unit: str = "angstrom") -> Atoms:
        """A structure as ASE has it, in angstrom; the store itself is in ``length_unit`` (empty: angstrom).

        ``info`` has the extra data of the structure that are one number (``charge``).
        """
        from ase import Atoms

        rows = slice(*self.offsets[structure : structure + 2].tolist())
        factor = conversion(length_unit or "angstrom", "angstrom")
        return Atoms(
            numbers=self.types[rows].numpy(),
            positions=factor * self.positions[rows].numpy(),
            cell=factor * self.cells[structure].numpy(),
            pbc=self.pbc[structure].numpy(),
            info=self.numbers(structure),
        )

    def atom_indices(self, structures: Tensor) -> Tensor:
        """Indices [n] of the atoms of ``structures``, in their order."""
        return slices(self.offsets, structures).rows

    def no_label(self, per_atom: bool, width: int) -> Label:
        """A label that is nowhere."""
        rows = len(self.types) if per_atom else len(self)
        values = torch.zeros(rows, width, dtype=torch.float64)
        return Label(values, per_atom, torch.zeros(rows, width, dtype=torch.bool))

    def select(self, structures: Tensor) -> StructureStore:
        """A new store with these structures, in this order."""
        atoms = self.atom_indices(structures)

        def pick(labels: dict[str, Label]) -> dict[str, Label]:
            return {k: v.take(atoms if v.per_atom else structures) for k, v in labels.items()}

        return StructureStore(
            positions=self.positions[atoms],
            types=self.types[atoms],
            cells=self.cells[structures],
            pbc=self.pbc[structures],
            offsets=offsets_of(self.n_atoms[structures]),
            labels=pick(self.labels),
            extra=pick(self.extra),
            files=self.files,
            origins=None if self.origins is None else self.origins[structures],
            ids=None if self.ids is None else self.ids[structures],
        )


def concatenated(
    stores: Sequence[StructureStore],
    labels: dict[str, Label] | None = None,
    extra: dict[str, Label] | None = None,
) -> StructureStore:
    """The structures of several stores, with these labels; where they came from, if all of them know it.

    Extra data that are not given are those that all of them have in one form.
    """
    files: list[str] = []
    origins = []
    for store in stores:
        if store.origins is not None:
            origins.append(store.origins + torch.tensor([len(files), 0]))
            files += store.files
    known = len(origins) == len(stores)
    if extra is None:
        forms = [{(k, v.per_atom, v.values.shape[1]) for k, v in s.extra.items()} for s in stores]
        common = sorted(name for name, _, _ in set.intersection(*forms))
        extra = {name: Label.joined([s.extra[name] for s in stores]) for name in common}
    return StructureStore(
        positions=torch.cat([s.positions for s in stores]),
        types=torch.cat([s.types for s in stores]),
        cells=torch.cat([s.cells for s in stores]),
        pbc=torch.cat([s.pbc for s in stores]),
        offsets=offsets_of(torch.cat([s.n_atoms for s in stores])),
        labels=labels or {},
        extra=extra,
        files=files if known else [],
        origins=torch.cat(origins) if known else None,
    )


def fingerprint(store: StructureStore, labels: bool = True) -> str:
    """Hash of all structures and extra data, with their labels or without."""
    digest = hashlib.sha256()
    tensors = [store.positions, store.types, store.cells, store.pbc, store.offsets]
    wanted = {**(store.labels if labels else {}), **store.extra}
    for name, label in sorted(wanted.items()):
        digest.update(name.encode())
        tensors += [label.values] + ([] if label.mask is None else [label.mask])
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def offsets_of(counts: Tensor) -> Tensor:
    """Where each of several pieces begins, and where the last ends: ``[n] -> [n + 1]``."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


class Slices(NamedTuple):
    """Rows of several structures out of a table that has all structures one after the other."""

    rows: Tensor
    """[n] int64, ``arange(offsets[k], offsets[k + 1])`` for each structure k, one after the other"""
    owners: Tensor
    """[n] int64, which of the structures (counted from 0) a row belongs to"""
    counts: Tensor
    """[n_structures] int64"""
    firsts: Tensor
    """[n_structures] int64, where each structure begins in ``rows``"""


def slices(offsets: Tensor, which: Tensor) -> Slices:
    """The rows of the structures ``which``, without a loop.

    In numpy: with so few numbers calls take the time, and every batch asks this twice.
    """
    bounds, chosen = offsets.numpy(), which.numpy()
    starts = bounds[chosen]
    return ranges(starts, bounds[chosen + 1] - starts)


def ranges(starts: np.ndarray, counts: np.ndarray) -> Slices:
    """The rows of structures that begin at ``starts`` and have ``counts`` rows, one after the other."""
    firsts = counts.cumsum() - counts
    owners = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    rows = np.repeat(starts - firsts, counts) + np.arange(len(owners))
    return Slices(*map(torch.from_numpy, (rows, owners, counts, firsts)))
