"""What is written in ASE's formats is read back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from helpers.formats import TARGETS, frames, read, same, write_store, write_xyz
from helpers.frames import labelled

from atomtrain.data import Files, StructureStore
from atomtrain.data.writers import Predictions, choose_output
from atomtrain.errors import OutputError
from atomtrain.targets import TargetInfo

EXACT = ["p.traj", "p.db", "p.json", "P.DB"]
TEXT = ["p.xyz", "p.extxyz", "P.XYZ", "p.xyz.gz", "p.extxyz.gz", "p.XYZ.BZ2", "p.xyz.xz"]


@pytest.fixture
def truth(workplace: Path) -> StructureStore:
    """Periodic structures and one without a cell, with values for TARGETS."""
    made = frames(3) + frames(1, stress=None)
    made[-1].set_pbc(False)
    made[-1].calc.atoms.set_pbc(False)
    write_xyz(made)
    return read(**TARGETS)


@pytest.mark.parametrize("name", EXACT + TEXT)
def test_the_same_comes_back(truth: StructureStore, name: str) -> None:
    write_store(truth, name)
    assert sorted(p.name for p in Path().iterdir()) == sorted(["a.xyz", "options.yaml", name])
    found = read(name, **TARGETS)
    digits = 1e-13 if name in EXACT else 1e-7  # eight digits behind the point
    assert set(found.labels) == set(truth.labels)
    for key, label in truth.labels.items():
        same(found.labels[key], label, 10 * digits if key == "energy:strain" else digits)
    torch.testing.assert_close(found.positions, truth.positions, rtol=0, atol=digits)
    assert torch.equal(found.cells, truth.cells)
    assert torch.equal(found.types, truth.types)
    assert torch.equal(found.pbc, truth.pbc)


@pytest.mark.parametrize("name", ["p.traj", "p.db", "p.json"])
def test_ase_reads_them_too(truth: StructureStore, name: str) -> None:
    write_store(truth, name)
    for k, atoms in enumerate(ase.io.read(name, ":")):
        assert atoms.get_potential_energy() == float(truth.labels["energy"].values[k])
    if name != "p.traj":
        with ase.db.connect(name) as database:
            assert [row.id for row in database.select()] == [1, 2, 3, 4]
            assert database.get(id=2).data["dos"].shape == (4,)
            assert database.write(labelled(0)) == 5  # it can be added to


@pytest.mark.parametrize("name", ["p.xyz", "p.traj", "p.db", "p.json"])
def test_classes_come_back(truth: StructureStore, name: str) -> None:
    """Probabilities under the target's name, the class beside them, of structures and of atoms."""
    rng = np.random.default_rng(0)
    targets = {
        "mtt::phase": TargetInfo("mtt::phase", kind="classes", classes=("bcc", "fcc", "hcp")),
        "mtt::nine": TargetInfo("mtt::nine", kind="classes", classes=tuple("012345678")),
        "mtt::site": TargetInfo("mtt::site", kind="classes", per_atom=True, classes=("edge", "in")),
    }
    values = {
        "mtt::phase": torch.from_numpy(rng.dirichlet(np.ones(3), len(truth))),
        "mtt::nine": torch.from_numpy(rng.dirichlet(np.ones(9), len(truth))),
        "mtt::site": torch.from_numpy(rng.dirichlet(np.ones(2), len(truth.types))),
    }
    choose_output(name).write(Predictions(truth, truth.cells.numpy(), targets, values))
    for target, info in targets.items():
        key = target.replace("::", "_") if info.per_atom and name == "p.xyz" else target
        type_ = {"classes": {"names": list(info.classes)}}
        options = {"type": type_, "sample_kind": "atom" if info.per_atom else "system"}
        found = read(name, **{target: {"key": key, **options}})
        torch.testing.assert_close(found.labels[target].values, values[target], rtol=0, atol=1e-7)
        found = read(name, **{target: {"key": f"{key}_class", **options}})
        assert torch.equal(found.labels[target].values.argmax(1), values[target].argmax(1))


def test_an_earlier_database_is_replaced(truth: StructureStore) -> None:
    for name in ("p.db", "p.json"):
        with ase.db.connect(name) as database:
            for k in range(7):
                database.write(labelled(k))
        write_store(truth, name)
        assert len(Files().structures(name, None, "here").frames) == 4


@pytest.mark.parametrize("name", ["p.db", "p.traj", "p.json", "p.xyz.gz"])
def test_all_or_nothing(truth: StructureStore, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from atomtrain.data.writers import ase_files

    Path(name).write_text("earlier")
    made = ase_files._frames

    def failing(predictions: Predictions) -> Any:
        for k, one in enumerate(made(predictions)):
            if k == 2:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(ase_files, "_frames", failing)
    with pytest.raises(KeyboardInterrupt):
        write_store(truth, name)
    assert Path(name).read_text() == "earlier"
    assert sorted(p.name for p in Path().iterdir()) == sorted(["a.xyz", "options.yaml", name])


def test_names_of_outputs(workplace: Path) -> None:
    assert choose_output("p.xyz.gz", 2).path == Path("p_2.xyz.gz")
    assert choose_output("P.XYZ", 1).path == Path("P_1.XYZ")
    assert choose_output("p.MTS").files(["energy"]) == [Path("p_energy.mts")]
    for name in ("p.gz", "p.db.gz", "p.zip.gz", "p.cif"):
        with pytest.raises(OutputError, match=r"as .xyz, .*, .traj, .db, .* \(xyz also packed"):
            choose_output(name)
