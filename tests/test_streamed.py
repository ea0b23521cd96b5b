"""Trainings on data that stay on disk: as many processes as one likes, restarts, errors."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.alloy import options, write_crystal
from helpers.processes import atomtrain, together

from atomtrain import api
from atomtrain.data.stored import Array
from atomtrain.errors import DataError
from atomtrain.runs import plan, prepare, workplace
from atomtrain.training.observers import EpochRecord, Observer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set on disk that is larger than the memory budget of its options."""
    found = tmp_path_factory.mktemp("streamed")
    write_crystal(found / "crystal.xyz", 40)
    done = atomtrain(found, "convert", str(found / "crystal.xyz"), "-o", "store")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "40 structures" in done.stdout
    return found


def write(folder: Path, name: str, **training: Any) -> None:
    given = options(base_precision=64, test_set=0.1, validation_set=0.1)
    given["architecture"]["training"] |= {"num_epochs": 2, "memory_budget": "20 kB", **training}
    given["training_set"]["systems"]["read_from"] = "store"
    (folder / name).write_text(yaml.safe_dump(given))


def losses(folder: Path) -> list[float]:
    """All numbers of ``train.csv``, epoch by epoch, without those that depend on time."""
    (path,) = folder.glob("outputs/*/*/train.csv")
    rows = csv.reader(path.read_text().splitlines()[1:])
    return [float(v) for row in rows for k, v in enumerate(row) if v and k not in (4, 5)]


def test_two_processes_on_data_on_disk_are_one(folder: Path, tmp_path: Path) -> None:
    found = {}
    for n in (1, 2):
        place = tmp_path / str(n)
        place.mkdir()
        (place / "store").symlink_to(folder / "store")
        write(place, "options.yaml")
        log = together(place, n, "train", "options.yaml")
        assert "stay on disk (memory_budget)" in log
        assert "read from disk as batches need them" in log
        found[n] = losses(place)
    assert len(found[1]) > 10
    np.testing.assert_allclose(found[2], found[1], rtol=1e-6)


def test_a_restart_goes_on_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "store").symlink_to(folder / "store")
    for name, epochs, more in (
        ("whole", 2, ()),
        ("parts", 1, ()),
        ("parts", 2, ("--restart", "auto")),
    ):
        write(tmp_path / name, "options.yaml", scheduler="constant", num_epochs=epochs)
        done = atomtrain(tmp_path / name, "train", "options.yaml", *more)
        assert done.returncode == 0, done.stderr
    one, other = (
        torch.load(tmp_path / name / "model.ckpt", weights_only=True)["model"]
        for name in ("whole", "parts")
    )

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        return not isinstance(a, dict) or all(equal(a[k], b[k]) for k in a)

    assert equal(one, other)


def given_here(folder: Path, **training: Any) -> dict[str, Any]:
    given = options(test_set=0.1, validation_set=0.1, final_eval=False)
    given["architecture"]["training"] |= {"num_epochs": 1, "memory_budget": "20 kB", **training}
    given["training_set"]["systems"]["read_from"] = str(folder / "store")
    return given


def test_denoising_of_data_on_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = given_here(folder)
    given["training_set"]["targets"] = {"mtt::noise": {"type": {"denoising": {"scale": 0.1}}}}
    result = api.train(given, output="model.pt")
    assert result.model is not None and result.model.is_file()


def test_a_data_set_that_changes_ends_the_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that reads hands the error on; what was trained so far is there."""
    monkeypatch.chdir(tmp_path)
    state, changed = Array._state, []
    monkeypatch.setattr(Array, "_state", lambda self: (0, 0) if changed else state(self))

    class Vandal(Observer):
        def on_epoch(self, record: EpochRecord) -> None:
            changed.append(record.epoch)

    with workplace(plan(given_here(folder, num_epochs=3)), Path("outputs")) as place:
        prepared = prepare(plan(given_here(folder, num_epochs=3)), place)
        prepared.run.observers.append(Vandal())
        with pytest.raises(DataError, match="changed while it was being read"):
            prepared.train()
    assert changed == [0]
    assert list(Path("outputs").rglob("*.ckpt"))
