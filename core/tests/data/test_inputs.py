"""Extra data that models take: read from every format, defaults, and errors that say which frame lacks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from helpers.frames import build, labelled, section

from atomtrain import api
from atomtrain.data import StreamedStore, check_inputs, datasets, unused
from atomtrain.data.consistency import kinds
from atomtrain.errors import DataError, OptionsError
from atomtrain.model import STANDARD, ExtraInput
from atomtrain.options import DatasetSection, load_options


@pytest.fixture
def ions(workplace: Path) -> Path:
    """Six structures with charges 0, 1, 2, 0, ... (none of the last one), and a weight of each atom."""
    frames = [labelled(k // 2) for k in range(6)]
    for k, atoms in enumerate(frames):
        atoms.arrays["weight"] = np.arange(3.0) + k
        if k < 5:
            atoms.info["charge"] = k % 3
    ase.io.write("ions.xyz", frames)
    return workplace


def with_charge(path: str = "ions.xyz", **said: Any) -> dict[str, Any]:
    return {**section(path), "extra_data": {"charge": {"key": "charge", **said}}}


@pytest.mark.parametrize("path", ["ions.xyz", "store", "ions.db", "mixed"])
def test_a_default_is_for_those_without(ions: Path, path: str) -> None:
    if path == "store":
        api.convert("ions.xyz", path)
    elif path == "ions.db":
        ase.io.write(path, ase.io.read("ions.xyz", ":"), append=False)
    given = with_charge(path, default=-1)
    if path == "ions.db":  # ASE's databases keep no info
        given["extra_data"]["charge"]["read_from"] = "ions.xyz"
    if path == "mixed":
        given = with_charge(default=-1)
        given["extra_data"]["weight"] = {"sample_kind": "atom", "default": 7}
    data = build(given, 0)
    assert data.train.extra["charge"].values.flatten().tolist() == [0, 1, 2, 0, 1, -1]
    assert data.train.extra["charge"].mask is None
    if path == "mixed":
        assert data.train.extra["weight"].values[3:5].flatten().tolist() == [1, 2]


def test_a_default_where_no_structure_has_it(ions: Path) -> None:
    data = build(with_charge(key="chrg", default=2), 0)
    assert data.train.extra["charge"].values.flatten().tolist() == [2] * 6
    with pytest.raises(DataError, match="has no 'chrg'; did you mean 'charge'"):
        build(with_charge(key="chrg"), 0)


def test_a_missing_one_is_named(ions: Path) -> None:
    message = r"extra_data.charge: 'charge' is missing in 1 of 6 structures \(frame 5 of 'ions.xyz'\).*default: 0"
    with pytest.raises(DataError, match=message):
        build(with_charge(), 0)
    with pytest.raises(DataError, match=r"structure 5 of 'ions.xyz'; only masks may be missing"):
        build(with_charge(allow_missing=True), 0)


def test_a_gap_on_disk_is_found_before_the_training(
    ions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ase.io.write("other.xyz", [ase.io.read("ions.xyz", k) for k in (0, 1, 5, 2, 3)])
    api.convert("other.xyz", "store")
    monkeypatch.setattr(datasets, "LOOKED_AT", 2)  # the first and the last
    given = {
        "architecture": {"name": "any"},
        "training_set": with_charge("store"),
        "validation_set": 0,
    }
    with pytest.raises(DataError, match=r"missing in 1 of 5 structures \(frame 2 of 'other.xyz'\)"):
        datasets.build_datasets(load_options(given), memory_budget=1000)
    given["training_set"]["extra_data"]["charge"]["default"] = 0
    train = datasets.build_datasets(load_options(given), memory_budget=1000).train
    assert isinstance(train, StreamedStore)
    window = train.select(torch.tensor([1, 2]))
    assert window.extra["charge"].values.flatten().tolist() == [1, 0]


def test_the_same_atoms_with_another_charge_are_no_copy(ions: Path) -> None:
    given = with_charge(default=0)
    store = build(given, 0).train
    assert len(set(build(section("ions.xyz"), 0).train.fingerprints)) == 3
    assert len(set(store.fingerprints)) == 6
    assert len(set(kinds(store).tolist())) == 3  # those of one charge
    assert store.fingerprint != build(with_charge(default=1), 0).train.fingerprint
    assert store.atoms(4).info == {"charge": 1.0}


def test_what_a_model_takes_is_compared_with_what_there_is(ions: Path) -> None:
    store = build(with_charge(default=0, unit="e"), 0).train
    said = DatasetSection.model_validate(with_charge(default=0, unit="e"))
    taken = {"charge": STANDARD["charge"]}
    check_inputs(taken, store, said)
    assert unused(taken, store) == [] and unused({}, store) == ["charge"]
    wrong = {
        "spin_multiplicity": (
            STANDARD["spin_multiplicity"],
            r"takes 'spin_multiplicity' of every system.*write extra_data: \{spin_multiplicity: \{key: spin_mult",
        ),
        "charge": (
            ExtraInput(per_atom=True),
            "1 of every system; write charge: .*sample_kind: atom",
        ),
        "charge ": (ExtraInput(width=3), "1 of every system; write charge: .*num_subtargets: 3"),
        "charge  ": (ExtraInput(unit="u"), "takes 'charge' in u, and unit says e"),
    }
    for name, (one, message) in wrong.items():
        with pytest.raises(OptionsError, match=message):
            check_inputs({name.strip(): one}, store, said)


def test_all_sets_need_them(ions: Path) -> None:
    with pytest.raises(OptionsError, match="extra data 'charge' must be given"):
        build(with_charge(default=0), section("ions.xyz"))
    assert torch.equal(
        build(with_charge(default=0), with_charge(default=5)).validation.extra["charge"].values[-1],
        torch.tensor([5.0], dtype=torch.float64),
    )
