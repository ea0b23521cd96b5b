"""The exported model: probabilities by class, a feature to differentiate, one file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from helpers.classes import options
from metatomic.torch import ModelEvaluationOptions, ModelOutput, System, load_atomistic_model
from metatomic_ase import MetatomicCalculator

import atomtrain
from atomtrain.report.show import describe_model

TWO = {"mtt::phase": {"key": "phase"}, "mtt::close": {"key": "close_packed", "type": "binary"}}


@pytest.fixture(scope="session")
def trained(site: Path, workshop: Path) -> Path:
    """The model of these tests, trained once, in the folder of the data."""
    described = options(TWO, num_epochs=80)
    described["architecture"]["model"].update(hidden_sizes=[16, 2, 8], feature_layer_index=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workshop)
        patch.syspath_prepend(str(site))
        atomtrain.train(described, output="two.pt")
    return workshop / "two.pt"


@pytest.fixture
def exported(place: Path, trained: Path) -> Path:
    """It, in the working directory."""
    shutil.copy(trained.with_suffix(".ckpt"), place / "model.ckpt")
    return Path(shutil.copy(trained, place / "model.pt"))


def test_what_it_offers(exported: Path) -> None:
    model = atomtrain.load(exported)
    outputs = model.capabilities().outputs
    # metatomic adds the older name of "feature"
    assert set(outputs) - {"features"} == {"mtt::phase", "mtt::close", "feature"}
    assert all(output.sample_kind == "system" for output in outputs.values())
    assert "probabilities of bcc, fcc, sc" in outputs["mtt::phase"].description
    assert list(model.capabilities().supported_devices) == ["cpu"]
    assert "rings: https://example.org/rings" in str(model.metadata())
    told = json.loads(model.metadata().extra["dataset_info"])
    assert told["targets"]["mtt::phase"]["classes"] == ["bcc", "fcc", "sc"]
    assert describe_model(model)["architecture"]["name"] == "classifier"


def test_probabilities_are_those_of_the_labels(exported: Path) -> None:
    systems = {"read_from": "other.xyz", "length_unit": "angstrom"}
    (found,) = atomtrain.evaluate(exported, {"systems": systems, "targets": TWO}, output=None)
    probabilities = found.predictions["mtt::phase"]
    assert torch.allclose(probabilities.sum(1), torch.ones(12, dtype=probabilities.dtype))
    names = ["bcc", "fcc", "sc"]
    called = [names[k] for k in probabilities.argmax(1).tolist()]
    labels = [atoms.info["phase"] for atoms in ase.io.read("other.xyz", ":")]
    assert np.mean([a == b for a, b in zip(called, labels, strict=True)]) > 0.9
    assert found.errors is not None and found.errors["mtt::phase"]["accuracy"] > 0.9


def test_the_feature_is_differentiable(exported: Path) -> None:
    """Derivatives by autograd equal finite differences: it serves as a collective variable."""
    model = load_atomistic_model(str(exported))
    (requested,) = model.requested_neighbor_lists()
    atoms = ase.io.read("other.xyz", 1)
    ask = ModelEvaluationOptions("angstrom", {"feature": ModelOutput(sample_kind="system")})

    def feature(positions: torch.Tensor) -> torch.Tensor:
        system = System(
            types=torch.tensor(atoms.numbers, dtype=torch.int32),
            positions=positions,
            cell=torch.tensor(atoms.cell.array),
            pbc=torch.tensor(atoms.pbc),
        )
        return _asked(model, system, requested, ask)

    exact = []
    positions = torch.tensor(atoms.positions, requires_grad=True)
    values = feature(positions)
    assert values.shape == (1, 2)
    for column in values[0]:
        (g,) = torch.autograd.grad(column, positions, retain_graph=True)
        exact.append(g)
    h = 1e-5
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        step = torch.zeros_like(positions)
        step[atom, axis] = h
        plus, minus = feature(positions.detach() + step), feature(positions.detach() - step)
        difference = (plus - minus)[0] / (2 * h)
        for column in range(2):
            wanted = float(exact[column][atom, axis])
            assert float(difference[column]) == pytest.approx(wanted, rel=1e-5, abs=1e-8)
    assert max(float(g.abs().max()) for g in exact) > 1e-3


def _asked(model, system, requested, ask) -> torch.Tensor:  # type: ignore[no-untyped-def]
    from vesin.metatomic import NeighborList

    system.add_neighbor_list(requested, NeighborList(requested, "angstrom").compute(system))
    values: torch.Tensor = model([system], ask, check_consistency=True)["feature"].block().values
    return values


BARE = """
import sys
class Refused:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("atomtrain", "atomtrain_classifier", "rings_model"):
            raise ImportError(name)
sys.meta_path.insert(0, Refused())
import ase.io
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator
calculator = MetatomicCalculator("model.pt", device="cpu")
atoms = ase.io.read("other.xyz", 0)
found = calculator.run_model(atoms, {"mtt::phase": ModelOutput(sample_kind="system")})
print(*found["mtt::phase"].block().values[0].tolist())
"""


def test_one_file_is_enough(exported: Path) -> None:
    """In a process that can import neither atomtrain nor the backbone's architecture."""
    (exported.parent / "backbone.ckpt").unlink()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BARE],
        cwd=exported.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    calculator = MetatomicCalculator(str(exported), device="cpu")
    atoms = ase.io.read(exported.parent / "other.xyz", 0)
    here = calculator.run_model(atoms, {"mtt::phase": ModelOutput(sample_kind="system")})
    values = here["mtt::phase"].block().values[0].tolist()
    assert [float(x) for x in done.stdout.split()] == pytest.approx(values, abs=1e-10)


def test_export_needs_no_file_of_the_backbone(exported: Path) -> None:
    (exported.parent / "backbone.ckpt").unlink()
    atomtrain.export("model.ckpt", output="again.pt")
    systems = {"read_from": "other.xyz", "length_unit": "angstrom"}
    first, second = (
        atomtrain.evaluate(name, {"systems": systems}, output=None)[0].predictions["mtt::phase"]
        for name in ("model.pt", "again.pt")
    )
    assert torch.equal(first, second)
