"""Labels: right sign, shape and mask; wrong ones refused with file and frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.frames import build, labelled, section

from atomtrain.data import Datasets, StructureStore
from atomtrain.errors import DataError, OptionsError


def write(frames: list[Atoms], name: str = "a.xyz") -> None:
    ase.io.write(name, frames, format="extxyz")


def everything(data: Datasets) -> StructureStore:
    """The training set of a build whose validation set has a file of its own."""
    assert data.splits["train"] == [list(range(len(data.train)))]
    return data.train


def own(path: str = "a.xyz", **energy: Any) -> StructureStore:
    return everything(build(section(path, **energy), [section(path, **energy)]))


def matrix(voigt: np.ndarray) -> np.ndarray:
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def test_energy_forces_strain(workplace: Path) -> None:
    frames = [labelled(k, n=2 + k) for k in range(4)]
    write(frames)
    store = own()
    assert set(store.labels) == {"energy", "energy:forces", "energy:strain"}
    assert all(label.mask is None for label in store.labels.values())
    assert store.labels["energy"].values.tolist() == [[0.0], [1.0], [2.0], [3.0]]
    forces = np.concatenate([a.calc.results["forces"] for a in frames])
    np.testing.assert_allclose(store.labels["energy:forces"].values, forces, atol=1e-7)
    strain = [a.get_volume() * matrix(a.calc.results["stress"]) for a in frames]
    np.testing.assert_allclose(
        store.labels["energy:strain"].values, np.array(strain).reshape(4, 9), rtol=1e-6
    )


def test_stress_as_matrix_and_virial(workplace: Path) -> None:
    frames = [labelled(k, n=9, stress=None) for k in range(4)]
    stresses = [matrix(np.random.default_rng(k).normal(size=6)) for k in range(4)]
    for atoms, stress in zip(frames, stresses, strict=True):
        atoms.info["pressure3x3"] = stress
        atoms.info["minus"] = -stress * atoms.get_volume()
    write(frames)
    by_stress = own(stress={"key": "pressure3x3"}).labels["energy:strain"].values
    by_virial = own(virial={"key": "minus"}).labels["energy:strain"].values
    strain = [a.get_volume() * s for a, s in zip(frames, stresses, strict=True)]
    np.testing.assert_allclose(by_stress, np.array(strain).reshape(4, 9), rtol=1e-6)
    np.testing.assert_allclose(by_virial, by_stress, rtol=1e-6)


def test_stress_without_volume_and_nan_is_masked(workplace: Path) -> None:
    frames = [
        labelled(0),
        labelled(1, pbc=[True, True, False]),
        labelled(2, stress=np.full(6, np.nan)),
        labelled(3, pbc=False),
        labelled(4, pbc=False, stress=None),
    ]
    write(frames)
    data = build(section("a.xyz", stress=True), [section("a.xyz")])
    strain = data.train.labels["energy:strain"]
    assert strain.mask is not None
    assert strain.mask.all(1).tolist() == [True, False, False, False, False]
    assert strain.mask.any(1).tolist() == [True, False, False, False, False]
    assert bool(torch.isfinite(strain.values).all())
    assert bool((strain.values[1:] == 0).all())
    assert "train: energy (stress) is masked for 4 of 5 structures" in data.notes


def test_stress_of_nothing_periodic(workplace: Path) -> None:
    write([labelled(k, pbc=False) for k in range(4)])
    assert "energy:strain" not in own().labels
    with pytest.raises(DataError, match=r"no structure has a usable stress .* set it to false"):
        own(stress=True)


def test_stress_takes_the_cell_of_the_structures(workplace: Path) -> None:
    frames = [labelled(k) for k in range(4)]
    write(frames)
    bare = [Atoms(a.numbers, a.positions, info={"s": a.get_stress()}) for a in frames]
    write(bare, "bare.xyz")
    there = own(stress={"read_from": "bare.xyz", "key": "s"}).labels["energy:strain"].values
    np.testing.assert_allclose(there, own().labels["energy:strain"].values, rtol=1e-6)


def test_labels_of_other_structures(workplace: Path) -> None:
    write([labelled(k) for k in range(4)])
    write([labelled(k, n=3 if k < 3 else 4) for k in range(4)], "other.xyz")
    message = "energy.forces: frame 3 of 'other.xyz' has other atoms than the structures"
    with pytest.raises(DataError, match=message):
        own(forces="other.xyz")
    write([labelled(k) for k in range(3)], "short.xyz")
    with pytest.raises(DataError, match=r"'short.xyz' holds 3 frames, but there are 4 structures"):
        own(read_from="short.xyz")


def test_taken_if_present(workplace: Path) -> None:
    write([labelled(k, stress=None) for k in range(4)])
    data = build(section("a.xyz"))
    assert "forces of 'energy' in 'a.xyz': found" in data.notes
    assert "stress of 'energy' in 'a.xyz': not found, left out" in data.notes
    assert data.info.targets["energy"].gradients == ("forces",)
    assert build(section("a.xyz", forces=False)).info.targets["energy"].gradients == ()


def test_asked_for_and_absent(workplace: Path) -> None:
    write([labelled(k, forces=None) for k in range(4)])
    with pytest.raises(DataError, match=r"options.yaml:.*forces: 'a.xyz' has no 'forces'"):
        own(forces=True)
    with pytest.raises(DataError, match=r"forces: 'a.xyz' has no 'forces'"):
        own(forces={"required": True})
    assert "energy:forces" not in own(forces={"required": False}).labels


@pytest.mark.parametrize(("key", "hint"), [("Energi", "energy"), ("FORCES", "forces")])
def test_wrong_key(workplace: Path, key: str, hint: str) -> None:
    write([labelled(k) for k in range(4)])
    message = f"has no '{key}'; did you mean '{hint}'\\? the file has: energy, forces, stress"
    with pytest.raises(DataError, match=message):
        own(key=key)


@pytest.mark.parametrize("what", ["energy", "forces"])
def test_missing_in_some(workplace: Path, what: str) -> None:
    write([labelled(k, **({what: None} if k in (1, 3) else {})) for k in range(5)])
    message = (
        rf"'{what}' is missing in 2 of 5 structures \(frames 1, 3 of 'a.xyz'\); .*allow_missing"
    )
    with pytest.raises(DataError, match=message):
        own()


def test_missing_and_allowed(workplace: Path) -> None:
    write([labelled(k, **({"energy": None} if k in (1, 3) else {})) for k in range(5)])
    energy = own(allow_missing=True).labels["energy"]
    assert energy.mask is not None
    assert energy.mask.flatten().tolist() == [True, False, True, False, True]
    assert energy.values.flatten().tolist() == [0, 0, 2, 0, 4]
    data = build(section("a.xyz", allow_missing=True), [section("a.xyz", allow_missing=True)])
    assert "train: energy is masked for 2 of 5 structures" in data.notes


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_energy_or_force_not_finite(workplace: Path, bad: float) -> None:
    forces = np.zeros((3, 3))
    forces[1, 2] = bad
    write([labelled(k, **({"energy": bad} if k == 2 else {})) for k in range(4)])
    with pytest.raises(DataError, match=r"'energy' is NaN or infinite in frame 2 of 'a.xyz'"):
        own(allow_missing=True)
    write([labelled(k, **({"forces": forces} if k > 1 else {})) for k in range(4)])
    with pytest.raises(DataError, match=r"'forces' is NaN or infinite in frames 2, 3 of 'a.xyz'"):
        own()


def test_forces_of_the_wrong_shape(workplace: Path) -> None:
    frames = [labelled(k, forces=None) for k in range(4)]
    for atoms in frames:
        atoms.arrays["f"] = np.zeros((3, 2))
    write(frames)
    message = r"'f' of frame 0 in 'a.xyz' does not fit: it has shape \(3, 2\), expected 3 atoms x 3"
    with pytest.raises(DataError, match=message):
        own(forces={"key": "f"})


def test_targets_per_atom_and_with_several_values(workplace: Path) -> None:
    frames = [labelled(k) for k in range(4)]
    for k, atoms in enumerate(frames):
        atoms.arrays["q"] = np.arange(3.0) + k
        atoms.arrays["born"] = np.arange(27.0).reshape(3, 9) + k
        atoms.info["dos"] = np.array([k, np.nan, 2.0 if k else np.nan, 1.0])
    write(frames)
    targets = {
        "mtt::q": {"key": "q", "sample_kind": "atom"},
        "mtt::born": {
            "key": "born",
            "sample_kind": "atom",
            "type": {"cartesian": {"rank": 2}},
        },
        "mtt::dos": {"key": "dos", "num_subtargets": 4},
    }
    training = {"systems": "a.xyz", "targets": targets}
    store = everything(build(training, [training]))
    assert store.labels["mtt::q"].values.flatten()[:6].tolist() == [0, 1, 2, 1, 2, 3]
    assert store.labels["mtt::born"].values.shape == (12, 9)
    assert store.labels["mtt::born"].values[4].tolist() == list(np.arange(9.0, 18.0) + 1)
    dos = store.labels["mtt::dos"]
    assert dos.mask is not None
    assert dos.mask[:2].tolist() == [[True, False, False, True], [True, False, True, True]]
    assert dos.values[0].tolist() == [0, 0, 0, 1]
    targets["mtt::dos"]["num_subtargets"] = 3
    with pytest.raises(DataError, match=r"'dos' of frame 0 in 'a.xyz' does not fit"):
        build(training)


def test_value_that_is_no_number(workplace: Path) -> None:
    frames = [labelled(k) for k in range(4)]
    for atoms in frames:
        atoms.info["e"] = "low"
    write(frames)
    with pytest.raises(DataError, match=r"'e' of frame 0 in 'a.xyz' does not fit: it is 'low'"):
        own(key="e")


def test_gradients_belong_to_energies(workplace: Path) -> None:
    write([labelled(k) for k in range(4)])
    with pytest.raises(OptionsError, match=r"only an energy .* has forces, stress or virial"):
        target = {"key": "energy", "quantity": "charge", "forces": True}
        build({"systems": "a.xyz", "targets": {"mtt::q": target}})
    data = build({"systems": "a.xyz", "targets": {"mtt::q": {"key": "energy", "forces": True}}})
    assert data.info.targets["mtt::q"].gradients == ("forces", "strain")
    assert "'mtt::q' is taken for an energy: the options give it gradients" in data.notes


def test_gradients_that_only_metatrain_spelt_out_may_be_absent(workplace: Path) -> None:
    write([labelled(k, forces=None) for k in range(4)])
    gradient: dict[str, Any] = {"read_from": "a.xyz", "reader": None}
    energy = {
        **gradient,
        "quantity": "energy",
        "key": "energy",
        "unit": "eV",
        "type": "scalar",
        "num_subtargets": 1,
        "sample_kind": "system",
        "description": "",
        "virial": False,
        "forces": {**gradient, "key": "forces"},
        "stress": {**gradient, "key": "stress"},
    }
    data = build({"systems": "a.xyz", "targets": {"energy": energy}})
    assert data.info.targets["energy"].gradients == ("strain",)
    said = "forces of 'energy' in 'a.xyz': not found, left out (the options name it"
    assert any(warning.startswith(said) for warning in data.warnings)
