"""The packed store: any number of structures and their labels as flat tensors.

One structure is a slice, one batch a gather; there is no Python object per structure. Positions and
labels are float64 here and are converted when a batch is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


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

    def __len__(self) -> int:
        return int(self.offsets.shape[0]) - 1

    @property
    def n_atoms(self) -> Tensor:
        """Atoms per structure, [n_structures] int64."""
        return self.offsets[1:] - self.offsets[:-1]

    def origin(self, structure: int) -> str:
        """Where a structure came from, for messages."""
        if self.origins is None:
            return f"structure {structure}"
        file, frame = self.origins[structure].tolist()
        return f"structure {frame} of '{self.files[file]}'"

    def atom_indices(self, structures: Tensor) -> Tensor:
        """Indices [n] of the atoms of ``structures``, in their order."""
        return slices(self.offsets, structures).rows

    def select(self, structures: Tensor) -> StructureStore:
        """A new store with these structures, in this order."""
        atoms = self.atom_indices(structures)

        def pick(labels: dict[str, Label]) -> dict[str, Label]:
            return {
                name: Label(
                    label.values[atoms if label.per_atom else structures],
                    label.per_atom,
                    None
                    if label.mask is None
                    else label.mask[atoms if label.per_atom else structures],
                )
                for name, label in labels.items()
            }

        counts = self.n_atoms[structures]
        return StructureStore(
            positions=self.positions[atoms],
            types=self.types[atoms],
            cells=self.cells[structures],
            pbc=self.pbc[structures],
            offsets=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            labels=pick(self.labels),
            extra=pick(self.extra),
            files=self.files,
            origins=None if self.origins is None else self.origins[structures],
        )


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
    counts = bounds[chosen + 1] - starts
    firsts = counts.cumsum() - counts
    owners = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    rows = np.repeat(starts - firsts, counts) + np.arange(len(owners))
    return Slices(*map(torch.from_numpy, (rows, owners, counts, firsts)))
