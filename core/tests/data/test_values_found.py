"""Values are found wherever ASE leaves them; what looks like forces is not passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from helpers.frames import build, labelled, section

from atomtrain.data import Datasets, Files
from atomtrain.errors import DataError


def bare(seed: int, n: int = 3) -> Atoms:
    return labelled(seed, n=n, energy=None, forces=None, stress=None)


def not_found(data: Datasets) -> list[str]:
    """The warnings of gradients; those of atoms that lie at random are for other tests."""
    return [warning for warning in data.warnings if "not found" in warning]


# -- databases -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.db", "a.json", "A.DB"])
def test_key_value_pairs_and_data(workplace: Path, name: str) -> None:
    kind = Path(name).suffix[1:].lower()
    rng = np.random.default_rng(0)
    charges = [rng.normal(size=n) for n in (2, 3, 6)]
    with ase.db.connect(name, type=kind) as database:
        for k, one in enumerate(charges):
            atoms = labelled(k, n=len(one)) if k else bare(k, n=len(one))
            data = {"charges": one, "tensor": rng.normal(size=6), "gap": -1.0, "energy": -5.0}
            database.write(atoms, gap=0.5 + k, label="metal", stable=True, data=data)
    frames = Files().structures(name, None, "here").frames
    assert len(frames) == 3
    for k, frame in enumerate(frames):
        assert frame.find("gap") == 0.5 + k  # rather than that of 'data'
        assert frame.find("label") == "metal"
        assert frame.find("stable") == 1
        np.testing.assert_array_equal(frame.per_atom["charges"], charges[k])
        assert frame.find("energy") == (k or -5.0)  # results go first


def test_data_as_schnetpack_writes_it(workplace: Path) -> None:
    rng = np.random.default_rng(0)
    with ase.db.connect("a.db") as database:
        database.metadata = {"_property_unit_dict": {"energy": "eV"}, "_distance_unit": "Ang"}
        for k in range(4):
            data = {"energy": np.array([k + 0.5]), "forces": rng.normal(size=(3, 3))}
            database.write(Atoms("H3", rng.normal(size=(3, 3))), data=data)
    data = build(section("a.db", forces=True))
    assert sorted(data.train.labels["energy"].values[:, 0].tolist() +
                  data.validation.labels["energy"].values[:, 0].tolist()) == [0.5, 1.5, 2.5, 3.5]  # fmt: skip
    rows = [row.data["forces"] for row in ase.db.connect("a.db").select()]
    chosen = data.splits["train"][0]
    assert chosen is not None
    found = data.train.labels["energy:forces"].values.numpy()
    np.testing.assert_array_equal(found, np.concatenate([rows[k] for k in chosen]))


def test_units_are_those_that_schnetpack_keeps(workplace: Path) -> None:
    """Its databases of MD17 are in kcal/mol; taken as eV they would train without a word."""
    rng = np.random.default_rng(0)
    units = {"energy": "kcal/mol", "forces": "kcal/mol/Ang", "polarizability": "a0 a0 a0"}
    with ase.db.connect("a.db") as database:
        database.metadata = {"_property_unit_dict": units, "_distance_unit": "Ang",
                             "atomrefs": {"energy": [0.0, -313.5]}}  # fmt: skip
        for k in range(4):
            data = {
                "energy": np.array([k]),
                "forces": rng.normal(size=(3, 3)),
                "polarizability": 1.0,
            }
            database.write(Atoms("H3", rng.normal(size=(3, 3))), data=data)
    file = Files().structures("a.db", None, "here")
    assert file.account is not None and file.account.length_unit == "angstrom"
    assert "atomrefs" in file.account.notes[1] and "forces in kcal/mol/Ang" in file.account.notes[0]
    assert build(section("a.db", forces=True)).info.targets["energy"].unit == "kcal/mol"
    with pytest.raises(
        DataError, match=r"'energy' of 'a.db' is read in kcal/mol, .* options say eV"
    ):
        build(section("a.db", forces=True, unit="eV"))
    build(
        section("a.db", key="polarizability", unit="eV")
    )  # a unit nobody knows is nobody's business


@pytest.mark.parametrize("name", ["a.xyz", "a.traj"])
def test_dictionaries_in_info(workplace: Path, name: str) -> None:
    atoms = bare(0)
    atoms.info["data"] = {"gap": 1.5, "shift": [1.0, 2.0, 3.0]}
    atoms.info["key_value_pairs"] = {"level": "pbe"}
    atoms.info["gap_of_all"] = {"gap": 9.0}
    ase.io.write(name, atoms)
    frame = Files().structures(name, None, "here").frames[0]
    assert frame.find("gap") in (1.5, 9.0)
    assert frame.find("shift") is not None
    assert frame.find("level") == "pbe"


# -- gradients under other names -------------------------------------------------------------------


def write(n: int = 4, **values: Any) -> None:
    """Structures with energies, and with values by name."""
    made = []
    for k in range(n):
        atoms = labelled(k, forces=None, stress=None)
        for name, value in values.items():
            where = atoms.arrays if np.shape(value)[:1] == (3,) else atoms.info
            where[name] = np.array(value)
        made.append(atoms)
    ase.io.write("a.xyz", made, format="extxyz")


VECTORS = np.ones((3, 3))


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ({"dft_forces": VECTORS}, {}, "write forces: {key: dft_forces}"),
        (
            {"ML_forces": VECTORS, "REF_forces": VECTORS, "REF_energy": 1.0},
            {"key": "REF_energy"},
            "write forces: {key: REF_forces}",
        ),
        ({"gradient": VECTORS}, {}, "'gradient': forces are minus the gradient"),
        (
            {"fx": np.ones(3), "fy": np.ones(3), "fz": np.ones(3)},
            {},
            "the columns fx, fy, fz: write them as one",
        ),
        ({"REF_stress": np.ones(6)}, {}, "write stress: {key: REF_stress}"),
        ({"virial": np.ones(9)}, {}, "write virial: true"),
        ({"virials": np.ones(9)}, {}, "write virial: {key: virials}"),
        ({"my_stress": np.ones(9)}, {"virial": "auto"}, "stress: {key: my_stress} instead of"),
    ],
)
def test_what_looks_like_a_gradient(
    workplace: Path, values: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    write(**values)
    data = build(section("a.xyz", **options))
    (warning,) = not_found(data)
    assert "in 'a.xyz': not found, left out, but the file has" in warning
    assert said in warning
    assert len([note for note in data.notes if "not found, left out" in note]) == 1


def test_the_options_it_says_are_right(workplace: Path) -> None:
    write(REF_forces=VECTORS, virials=np.arange(9.0))
    data = build(section("a.xyz", forces={"key": "REF_forces"}, virial={"key": "virials"}))
    assert not not_found(data)
    assert (data.train.labels["energy:forces"].values == 1).all()
    assert data.train.labels["energy:strain"].values[0].sum() == -36


@pytest.mark.parametrize(
    "values",
    [{"max_force": 0.1}, {"force_converged": np.ones(3)}, {"stress_tensor_of": np.ones(4)}, {}],
)
def test_what_does_not(workplace: Path, values: dict[str, Any]) -> None:
    write(**values)
    data = build(section("a.xyz"))
    assert not not_found(data)
    assert "forces of 'energy' in 'a.xyz': not found, left out" in data.notes


def test_no_warning_where_it_is_off_or_found(workplace: Path) -> None:
    write(REF_forces=VECTORS, virial=np.ones(9))
    assert not not_found(build(section("a.xyz", forces=False, stress=False)))
    ase.io.write("a.xyz", [labelled(k) for k in range(4)])
    data = build(section("a.xyz"))
    assert not not_found(data)
    assert "stress of 'energy' in 'a.xyz': found" in data.notes
