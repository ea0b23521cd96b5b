"""The layout of atoms by element, and what is made with it."""

import pytest
import torch
from helpers.layouts import check_alike

from atomtrain.graph import HOST, AtomGraph
from atomtrain_density.elements import (
    all_together,
    by_species,
    columns_by_element,
    kept_layout,
    layout_of,
)
from atomtrain_density.pairs import groups_of, kept_groups

SCRIPTED_ATOMS = torch.jit.script(by_species)


@pytest.mark.parametrize("n_species", [1, 3])
@pytest.mark.parametrize("n_atoms", [0, 1, 9, 500])
def test_atoms(n_atoms: int, n_species: int) -> None:
    generator = torch.Generator().manual_seed(n_atoms)
    species = torch.randint(0, n_species, (n_atoms,), generator=generator)
    layout = by_species(species, n_species)
    check_alike(layout, SCRIPTED_ATOMS(species, n_species))
    every = torch.arange(n_atoms)
    assert torch.equal(species[layout.order], layout.kinds)
    assert torch.equal(layout.order[layout.ranks], every)
    if n_atoms > 0:
        assert torch.equal(layout.rows[layout.places], every)
        place = torch.div(layout.places, layout.width, rounding_mode="floor")
        assert torch.equal(place, species)


def test_columns_belong_to_elements() -> None:
    species = torch.tensor([1, 0, 1])
    of_atoms = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    layout = by_species(species, 2)
    x = of_atoms[layout.rows].reshape(2, layout.width, 2)
    expected = [[0.0, 0.0, 1.0, 2.0], [3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 5.0, 6.0]]
    assert columns_by_element(x, layout).tolist() == expected
    assert torch.equal(columns_by_element(of_atoms.unsqueeze(0), all_together(species)), of_atoms)


def test_layouts_that_a_batch_brings_are_those_that_would_be_made() -> None:
    """A GPU gets them with the batch, from numpy on the CPU."""
    generator = torch.Generator().manual_seed(0)
    species = torch.randint(0, 3, (12,), generator=generator)
    ends = torch.randint(0, 12, (2, 90), generator=generator)
    none = torch.empty(0)
    graph = AtomGraph(none, species, none, none, none, ends[0], ends[1], none, none, {})
    atoms, pairs = by_species(species, 4), groups_of(graph, species, 4)
    brought = {**kept_layout(atoms), **kept_groups(pairs)}
    with_them = graph._replace(extras=brought)
    for mine, wanted in (
        (layout_of(with_them, species, 4), atoms),
        (groups_of(with_them, species, 4), pairs),
    ):
        assert type(mine) is type(wanted)
        for part, other in zip(mine, wanted, strict=True):
            assert torch.equal(part, other) if isinstance(part, torch.Tensor) else part == other
    assert {k for k, v in brought.items() if k.startswith(HOST)} == {"host/atoms", "host/groups"}
