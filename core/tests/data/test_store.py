"""What a packed store gives of single structures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from ase import Atoms

from atomtrain.data import StructureStore


def test_a_structure_as_ase_has_it() -> None:
    store = StructureStore(
        positions=torch.arange(9, dtype=torch.float64).reshape(3, 3),
        types=torch.tensor([1, 6, 8]),
        cells=torch.stack([torch.zeros(3, 3), 4 * torch.eye(3)]).double(),
        pbc=torch.tensor([[False] * 3, [True, True, False]]),
        offsets=torch.tensor([0, 1, 3]),
    )
    cell = np.diag([4.0, 4.0, 4.0])
    pair = Atoms("CO", [[3, 4, 5], [6, 7, 8]], cell=cell, pbc=[True, True, False])
    assert store.atoms(1) == pair and store.atoms(1, "") == pair
    assert store.atoms(0) == Atoms("H", [[0, 1, 2]])
    in_nm = replace(store, positions=store.positions / 10, cells=store.cells / 10)
    found = in_nm.atoms(1, "nm")
    np.testing.assert_allclose(found.positions, pair.positions)
    np.testing.assert_allclose(found.cell.array, cell)
    # ASE's are copies: who moves them does not move the store
    found.positions += 1.0
    store.atoms(1).positions += 1.0
    assert store.atoms(1) == pair
