"""What is checked of data when they are read: errors and warnings name file, frame and atoms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import get_distances

from atomtrain.data import Datasets, StructureStore, build_datasets
from atomtrain.data.checks import set_warnings
from atomtrain.data.distances import close_pairs
from atomtrain.errors import DataError
from atomtrain.options import load_options


def build(
    systems: Any = "a.xyz", validation: Any = 0.25, unit: str = "angstrom", **target: Any
) -> Datasets:
    systems = {"read_from": systems, "length_unit": unit}
    given = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": {"systems": systems, "targets": {"energy": {"key": "energy", **target}}},
        "validation_set": validation,
    }
    return build_datasets(load_options(given))


def water(k: int, **results: Any) -> Atoms:
    """Shaken, its energy one of twenty values."""
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=k)
    forces = np.random.default_rng(k).normal(size=(3, 3))
    found = {"energy": -14.0 + 0.1 * (k % 20), "forces": forces, **results}
    atoms.calc = SinglePointCalculator(atoms, **found)
    return atoms


def stored(*structures: Atoms) -> StructureStore:
    counts = [0, *np.cumsum([len(a) for a in structures])]
    cells = [np.where(a.pbc[:, None], a.cell.array, 0.0) for a in structures]
    return StructureStore(
        positions=torch.from_numpy(np.concatenate([a.positions for a in structures])),
        types=torch.from_numpy(np.concatenate([a.numbers for a in structures])),
        cells=torch.from_numpy(np.stack(cells)),
        pbc=torch.from_numpy(np.stack([a.pbc for a in structures])),
        offsets=torch.tensor(counts),
    )


def test_clean_data_are_silent(workplace: Path) -> None:
    ase.io.write("a.xyz", [water(k) for k in range(40)])
    assert build().warnings == []


@pytest.mark.parametrize("pbc", [False, True, (True, True, False), (False, True, False)])
def test_close_pairs_are_those_of_ase(pbc: Any) -> None:
    """Random gases in skewed cells, small and large ones: the closest pair of each, images as well."""
    rng = np.random.default_rng(5)
    structures = []
    for n in (1, 2, 5, 30, 260):
        for _ in range(6 if n < 100 else 1):  # the slow way takes a second for a large one
            cell = 1.3 * n ** (1 / 3) * (np.eye(3) + 0.3 * rng.normal(size=(3, 3)))
            atoms = Atoms(rng.choice([1, 8, 55], n), rng.random((n, 3)) @ cell, cell=cell, pbc=pbc)
            structures.append(atoms)
    found = close_pairs(stored(*structures), "angstrom")
    from ase.data import covalent_radii

    expected = {}
    for k, atoms in enumerate(structures):
        # all images within three cells, the slow way
        images = [np.arange(-3, 4) if p else np.zeros(1, int) for p in atoms.pbc]
        shifts = np.stack(np.meshgrid(*images, indexing="ij"), -1).reshape(-1, 3)
        radii = 0.5 * covalent_radii[atoms.numbers]
        limits = radii[:, None] + radii
        closest = np.inf
        for shift in shifts:
            other = atoms.positions + shift @ atoms.cell.array
            _, distances = get_distances(atoms.positions, other)
            if not shift.any():
                np.fill_diagonal(distances, np.inf)
            within = distances[distances < limits]
            closest = min(closest, within.min(initial=np.inf))
        if np.isfinite(closest):
            expected[k] = closest
    assert found.structures.tolist() == list(expected) and len(expected) > 10
    np.testing.assert_allclose(found.distances, list(expected.values()), atol=1e-10)
    for k, i, j, distance in zip(
        found.structures, found.first, found.second, found.distances, strict=True
    ):
        if i != j and not structures[k].pbc.any():
            assert structures[k].get_distance(i, j) == pytest.approx(distance)


@pytest.mark.parametrize("shift", [0.0, 5e-4])
def test_two_atoms_in_one_place(workplace: Path, shift: float) -> None:
    frames = [water(k) for k in range(12)]
    frames[7].positions[2] = frames[7].positions[0] + [shift, 0, 0]
    ase.io.write("a.xyz", frames)
    message = r"have two atoms in one place \(structure 7 of 'a.xyz': O0 and H2, .* A\); no model"
    with pytest.raises(DataError, match=message):
        build()
    with pytest.raises(DataError, match=message):  # where it is read for validation alone
        ase.io.write("good.xyz", frames[:7])
        build("good.xyz", {"systems": "a.xyz", "targets": {"energy": "a.xyz"}})


def test_atoms_in_one_place_across_a_cell(workplace: Path) -> None:
    frames = []
    for k in range(8):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.01, seed=k)
        if k == 5:
            atoms += Atoms("Cu", [atoms.positions[1] + atoms.cell[0] - atoms.cell[2]])
        atoms.info["energy"] = -1.0 - k
        frames.append(atoms)
    ase.io.write("a.xyz", frames)
    with pytest.raises(DataError, match=r"structure 5 of 'a.xyz': Cu1 and Cu4, .* A"):
        build(forces=False)


def test_close_atoms_are_a_warning(workplace: Path) -> None:
    """Also where the file is in another unit than the options say."""
    frames = [water(k) for k in range(12)]
    frames[3].positions[1] = frames[3].positions[0] + [0.3, 0, 0]
    ase.io.write("a.xyz", frames)
    (warning,) = build().warnings
    assert "1 of 12 structures have atoms closer than half" in warning
    assert "structure 3 of 'a.xyz': O0 and H1, 0.3 A" in warning
    frames = [water(k) for k in range(12)]
    ase.io.write("a.xyz", frames)
    assert "structures have atoms closer than half" in build(unit="bohr").warnings[0]
    assert not build(unit="nm").warnings
    for atoms in frames:
        atoms.positions *= 0.1  # nanometres
    ase.io.write("a.xyz", frames)
    assert "12 of 12 structures have atoms closer" in build().warnings[0]
    assert not build(unit="nm").warnings


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("energy", 1e12, "have 'energy' far beyond the others.*structure 5 of 'a.xyz': 3.333e.11"),
        ("energy", -9000.0, "'energy' far beyond.*structure 5 of 'a.xyz': -3000"),
        ("forces", 1e6, r"'energy \(forces\)' far beyond.*structure 5 of 'a.xyz': 1e.06"),
    ],
)
def test_outliers(workplace: Path, label: str, value: float, message: str) -> None:
    frames = [water(k) for k in range(40)]
    given = value if label == "energy" else np.full((3, 3), value)
    frames[5] = water(5, **{label: given})
    ase.io.write("a.xyz", frames)
    (warning,) = [text for text in build().warnings if "beyond any physics" not in text]
    assert re.search(message, warning) and "1 of " in warning


def test_outliers_of_a_small_set(workplace: Path) -> None:
    """They are measured by the training set."""
    ase.io.write("a.xyz", [water(k) for k in range(30)])
    ase.io.write("b.xyz", [water(50), water(51, energy=1e12), water(52)])
    (warning,) = build(validation={"systems": "b.xyz", "targets": {"energy": "b.xyz"}}).warnings
    assert warning.startswith("validation set: 1 of 3 structures have 'energy' far beyond")
    assert "structure 1 of 'b.xyz'" in warning


def test_isolated_atoms_are_no_outliers(workplace: Path) -> None:
    """Nor are a few structures of another kind."""
    atoms = []
    for _k, (symbol, energy) in enumerate((("H", -1.0), ("O", -0.2))):
        one = Atoms(symbol)
        one.calc = SinglePointCalculator(one, energy=energy, forces=np.zeros((1, 3)))
        atoms.append(one)
    ase.io.write("a.xyz", [*[water(k) for k in range(60)], *atoms])
    assert build(validation=0.1).warnings == []


def test_copies(workplace: Path) -> None:
    """Every frame four times, the last of them with another energy."""
    frames = [water(k) for k in range(10)]
    wrong = water(9, energy=-3.0)
    ase.io.write("a.xyz", [*frames, *frames, *frames, *frames[:9], wrong])
    ase.io.write("b.xyz", frames[:4] + [water(100)])
    other = {"systems": "b.xyz", "targets": {"energy": "b.xyz"}}
    data = build(validation=other)
    copies, again = sorted(data.warnings)
    assert (
        "training set: 30 of 40 structures are there before, atom by atom, 1 of them with other"
        in copies
    )
    assert "structure 10 of 'a.xyz': the same as structure 0 of 'a.xyz'" in copies
    assert "validation set: 4 of 5 structures are in the training set too" in again
    assert "structure 0 of 'b.xyz': structure 0 of 'a.xyz'" in again


def test_partial_occupancies(workplace: Path) -> None:
    Path("a.cif").write_text(
        """data_alloy
_cell_length_a 3.6
_cell_length_b 3.6
_cell_length_c 3.6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cu1 Cu 0 0 0 0.7
Ni1 Ni 0 0 0 0.3
"""
    )
    given = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": {
            "systems": "a.cif",
            "targets": {"energy": {"read_from": "e.xyz", "forces": False, "stress": False}},
        },
        "validation_set": {"systems": "e.xyz", "targets": {"energy": "e.xyz"}},
    }
    one = Atoms("Cu", cell=[3.6] * 3, pbc=True)
    one.info["energy"] = -1.0
    ase.io.write("e.xyz", [one])
    with pytest.raises(DataError, match="1 of 1 structures have sites that are shared by elements"):
        build_datasets(load_options(given))


def test_a_structure_alone(workplace: Path) -> None:
    """Nothing to compare with, and atoms without a neighbour."""
    assert set_warnings(stored(Atoms("H"))) == []
    assert len(close_pairs(stored(Atoms("H"), water(0)), "angstrom").structures) == 0
