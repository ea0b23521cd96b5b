"""The command line on every format of data: trained from a folder and an archive, written to all four."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml
from helpers.alloy import crystal, options
from helpers.processes import atomtrain
from typer.testing import CliRunner

from atomtrain import api
from atomtrain.cli.app import app
from atomtrain.data import Remarks, read_section
from atomtrain.data.readers import Files
from atomtrain.data.writers import Predictions, choose_output
from atomtrain.options import DatasetSection

pytestmark = pytest.mark.filterwarnings("ignore")

PULL = {"sample_kind": "atom", "type": {"cartesian": {"rank": 1}}, "key": "pull"}
TARGETS: dict[str, Any] = {
    "energy": {"unit": "eV", "forces": True, "stress": True},
    "mtt::pull": PULL,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same structures and labels as ``data.xyz``, ``data.zip``, ``data/`` and ``data_*.mts``."""
    folder = tmp_path_factory.mktemp("formats")
    frames = []
    for seed in range(12):
        atoms = crystal(seed)
        atoms.arrays["pull"] = np.random.default_rng(seed).normal(size=(len(atoms), 3))
        frames.append(atoms)
    ase.io.write(folder / "data.xyz", frames, format="extxyz")
    section = DatasetSection.model_validate(
        {"systems": str(folder / "data.xyz"), "targets": TARGETS}
    )
    loaded = read_section(section, Files(), Remarks())
    values = {key: label.values for key, label in loaded.store.labels.items()}
    volume = np.array([abs(a.get_volume()) for a in frames])[:, None]
    values["energy:stress"] = values["energy:strain"] / volume
    cells = np.stack([a.cell.array for a in frames])
    for name in ("data.zip", "data.mts", "data/"):
        output = choose_output(f"{folder}/{name}")
        output.write(Predictions(loaded.store, cells, loaded.targets, values))
    return folder


@pytest.mark.parametrize(
    ("systems", "energy", "pull"),
    [
        ("data", "data", "data"),
        ("data.zip", "data_energy.mts", "data_mtt::pull.mts"),
        ("data.zip", "data.zip", "data.zip"),
    ],
)
def test_training_and_evaluation(
    place: Path, monkeypatch: pytest.MonkeyPatch, systems: str, energy: str, pull: str
) -> None:
    monkeypatch.chdir(place)
    targets = {
        "energy": {**TARGETS["energy"], "read_from": energy},
        "mtt::pull": {**PULL, "key": "mtt::pull", "read_from": pull},
    }
    training = {"systems": {"read_from": systems, "length_unit": "angstrom"}, "targets": targets}
    chosen = options(training_set=training, base_precision=64)
    chosen["architecture"]["training"] |= {"num_epochs": 2, "checkpoint_interval": 2}
    Path("options.yaml").write_text(yaml.safe_dump(chosen))
    trained = CliRunner().invoke(app, ["train", "options.yaml"], catch_exceptions=False)
    assert trained.exit_code == 0, trained.output

    Path("xyz.yaml").write_text(yaml.safe_dump({"systems": "data.xyz", "targets": TARGETS}))
    Path("eval.yaml").write_text(yaml.safe_dump(training))
    (truth,) = api.evaluate("model.pt", "xyz.yaml", output=None, batch_size=5)
    (found,) = api.evaluate("model.pt", "eval.yaml", output=None, batch_size=5)
    single = systems == "data"  # precision
    for key, errors in truth.errors.items():
        assert found.errors[key]["count"] == errors["count"]
        assert found.errors[key]["rmse"] == pytest.approx(
            errors["rmse"], rel=1e-4 if single else 1e-6
        )


def test_predictions_in_every_format(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one command writes, another reads as labels that the model hits exactly."""
    monkeypatch.chdir(place)
    chosen = options(training_set={"systems": "data.xyz", "targets": TARGETS}, base_precision=64)
    chosen["architecture"]["training"] |= {"num_epochs": 1}
    Path("options.yaml").write_text(yaml.safe_dump(chosen))
    api.train("options.yaml", output="exact.pt")
    Path("eval.yaml").write_text("systems: data.zip\n")
    for output in ("out.xyz", "out.mts", "out.zip", "out/"):
        arguments = ["eval", "exact.pt", "eval.yaml", "-o", output, "-b", "5"]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "predictions written" in done.output
    assert len(ase.io.read("out.xyz", ":")) == 12
    for systems, file in (
        ("out.xyz", "out.xyz"),
        ("out.xyz", "out_{}.mts"),
        ("out.zip", "out.zip"),
        ("out", "out"),
    ):
        targets = {
            name: {**TARGETS[name], "read_from": file.format(name), "key": name} for name in TARGETS
        }
        if file == "out.xyz":
            targets["mtt::pull"]["key"] = "mtt_pull"
        Path("again.yaml").write_text(yaml.safe_dump({"systems": systems, "targets": targets}))
        (found,) = api.evaluate("exact.pt", "again.yaml", output=None, batch_size=5)
        assert set(found.errors) == {"energy", "energy:forces", "energy:strain", "mtt::pull"}
        for key, errors in found.errors.items():
            # xyz has eight digits, a folder seven
            assert errors["rmse"] < 2e-6, (file, key)
    again = atomtrain(place, "eval", "exact.pt", "eval.yaml", "-o", "out/")
    assert again.returncode == 1
    assert "a folder with files in it" in again.stdout + again.stderr
