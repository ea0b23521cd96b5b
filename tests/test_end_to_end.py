"""From the options file to a model in ASE, through the command line."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase.build import make_supercell
from helpers.alloy import crystal
from helpers.processes import atomtrain
from helpers.structures import source_of
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

from atomtrain import api
from atomtrain.data.datasets import build_datasets
from atomtrain.evaluation import evaluate_model
from atomtrain.model import forces_and_strain, with_leaves
from atomtrain.options import load_eval_options, load_options
from atomtrain.plugins.restore import restore
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain_testing.subject import environment

pytestmark = pytest.mark.filterwarnings("ignore")


def test_what_a_training_leaves(trained: Path) -> None:
    (run,) = (trained / "outputs").glob("*/*")
    names = {p.name for p in run.iterdir()}
    assert {"train.log", "train.csv", "options.yaml", "indices", "model.ckpt", "model.pt"} <= names
    assert {f"model_{k}.ckpt" for k in range(1, 7)} <= names
    assert not [p for p in trained.rglob("*") if p.name.endswith(".tmp") or ".tmp." in p.name]
    rows = list(csv.DictReader((run / "train.csv").open()))
    assert [int(row["epoch"]) for row in rows] == list(range(6))
    column = "validation forces RMSE [meV/A]"
    assert float(rows[-1][column]) < float(rows[0][column])
    text = (trained / "stdout.txt").read_text()
    assert all(line.startswith("[20") for line in text.splitlines() if line.strip())
    assert "Epoch" in text and "final test errors" in text and "model.pt" in text
    indices = [(run / "indices" / f"{s}_0.txt").read_text().split()
               for s in ("train", "validation", "test")]  # fmt: skip
    assert sorted(int(i) for part in indices for i in part) == list(range(24))


def test_completed_options_run_again_the_same(trained: Path, workplace: Path) -> None:
    (run,) = (trained / "outputs").glob("*/*")
    text = (run / "options.yaml").read_text()
    (workplace / "options.yaml").write_text(text)
    assert atomtrain(workplace, "train", "options.yaml", fresh=True).returncode == 0
    first, second = (load_checkpoint(f / "model.ckpt") for f in (trained, workplace))
    for name, tensor in first["model"]["last"].items():
        assert torch.equal(tensor, second["model"]["last"][name]), name
    assert second["options"] == yaml.safe_load(text)


def calculator(folder: Path) -> MetatomicCalculator:
    return MetatomicCalculator(str(folder / "model.pt"), device="cpu")


def test_ase_equals_training_time_predictions(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    predictor = restore(load_checkpoint("model.ckpt"), "export").predictor
    data = build_datasets(load_options("options.yaml"))
    source = source_of(data.train, cutoff=4.0)
    batch = source.batch(torch.arange(3))
    graph = with_leaves(batch.graph)
    energies = predictor(graph, ["energy"])["energy"][0]
    forces, strain = forces_and_strain(energies, graph, strain=True, create_graph=False)
    assert strain is not None
    frames = ase.io.read("crystal.xyz", ":")
    calc = calculator(trained)
    for k in range(3):
        atoms = frames[data.splits["train"][0][k]]
        atoms.calc = calc
        mine = graph.structure == k
        assert atoms.get_potential_energy() == pytest.approx(
            float(energies[mine].sum().detach()), abs=1e-9
        )
        np.testing.assert_allclose(atoms.get_forces(), forces[mine].detach(), atol=1e-9)
        np.testing.assert_allclose(
            atoms.get_stress(voigt=False).reshape(9) * atoms.get_volume(),
            strain[k].detach(),
            atol=1e-8,
        )
        per_atom = calc.run_model(
            atoms, {"energy": ModelOutput(unit="eV", sample_kind="atom")}
        )["energy"].block().values[:, 0]  # fmt: skip
        torch.testing.assert_close(per_atom, energies[mine][:, 0].detach(), rtol=0, atol=1e-9)


def test_forces_stress_and_extensivity_through_ase(trained: Path) -> None:
    calc = calculator(trained)
    atoms = crystal(77)
    atoms.calc = calc
    energy, forces, stress = (
        atoms.get_potential_energy(),
        atoms.get_forces(),
        atoms.get_stress(voigt=False),
    )
    h = 1e-4

    def at(positions=None, strain=None):  # type: ignore[no-untyped-def]
        other = crystal(77)
        if positions is not None:
            other.positions[:] = positions
        if strain is not None:
            other.set_cell(other.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        other.calc = calc
        return other.get_potential_energy()

    for atom, axis in ((0, 1), (2, 0)):
        step = np.zeros_like(atoms.positions)
        step[atom, axis] = h
        numeric = -(at(atoms.positions + step) - at(atoms.positions - step)) / (2 * h)
        assert numeric == pytest.approx(forces[atom, axis], rel=1e-6, abs=1e-7)
    for a, b in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] = h
        numeric = (at(strain=strain) - at(strain=-strain)) / (2 * h) / atoms.get_volume()
        assert numeric == pytest.approx(stress[a, b], rel=1e-6, abs=1e-8)
    doubled = make_supercell(crystal(77), np.diag([2, 1, 1]))
    doubled.calc = calc
    assert doubled.get_potential_energy() == pytest.approx(2 * energy, abs=1e-9)


BARE = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {"atomtrain", "atomtrain_soap_bpnn", "atomtrain_density", "spex", "sphericart"}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import ase.io, numpy as np, torch
from metatomic_ase import MetatomicCalculator
calc = MetatomicCalculator("model.pt", device="cpu")
assert not [l for l in torch.ops.loaded_libraries if "sphericart" in l]
rng = np.random.default_rng(0)
frames = ase.io.read("crystal.xyz", ":")
for call in range(24):
    atoms = frames[call].repeat((1 + call % 3, 1, 1 + call % 2))
    atoms.calc = calc
    forces = atoms.get_forces()
    atom, axis = rng.integers(len(atoms)), rng.integers(3)
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[atom, axis] += sign * 1e-4
        moved.calc = calc
        energies.append(moved.get_potential_energy())
    numeric = -(energies[0] - energies[1]) / 2e-4
    assert abs(numeric - forces[atom, axis]) < 1e-6 * max(1, abs(numeric)), (call, numeric)
assert "atomtrain" not in sys.modules and "spex" not in sys.modules
print("right")
"""


def test_right_in_a_bare_process(trained: Path, tmp_path: Path) -> None:
    """No extensions folder, no sphericart, torch-spex or atomtrain: forces are still gradients."""
    for name in ("model.pt", "crystal.xyz"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", BARE],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("right")


def test_eval_equals_ase_frame_by_frame(
    trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "eval.yaml").write_text(
        "systems: crystal.xyz\ntargets: {energy: {unit: eV, forces: true, stress: true}}\n"
    )
    done = atomtrain(
        workplace, "eval", str(trained / "model.pt"), "eval.yaml", "-o", "p.xyz", "-b", "5"
    )
    assert done.returncode == 0, done.stderr
    assert "forces RMSE" in done.stdout and "ms per atom" in done.stdout
    calc = calculator(trained)
    reference = ase.io.read(workplace / "crystal.xyz", ":")
    energy_errors, force_errors = [], []
    for atoms, predicted in zip(reference, ase.io.read(workplace / "p.xyz", ":"), strict=True):
        mine = atoms.copy()
        mine.calc = calc
        assert predicted.get_potential_energy() == pytest.approx(
            mine.get_potential_energy(), abs=1e-7
        )
        np.testing.assert_allclose(predicted.get_forces(), mine.get_forces(), atol=1e-7)
        np.testing.assert_allclose(predicted.get_stress(), mine.get_stress(), atol=1e-7)
        energy_errors.append((mine.get_potential_energy() - atoms.get_potential_energy()) / 4)
        force_errors.append(mine.get_forces() - atoms.get_forces())
    monkeypatch.chdir(workplace)
    (result,) = evaluate_model(trained / "model.pt", load_eval_options("eval.yaml"), None)
    assert result.errors["energy"]["rmse"] == pytest.approx(
        np.sqrt(np.mean(np.square(energy_errors))), rel=1e-6
    )
    assert result.errors["energy:forces"]["rmse"] == pytest.approx(
        np.sqrt(np.mean(np.square(force_errors))), rel=1e-6
    )


def test_export_show_and_load(trained: Path, workplace: Path) -> None:
    (workplace / "meta.yaml").write_text("name: alloy\ndescription: a test\nauthors: [Jo Doe]\n")
    done = atomtrain(
        workplace, "export", str(trained / "model.ckpt"), "-o", "x.pt", "--metadata", "meta.yaml"
    )
    assert done.returncode == 0, done.stderr
    assert api.load(workplace / "x.pt").metadata().name == "alloy"
    assert api.load(trained / "model.ckpt").capabilities().length_unit == "angstrom"
    for file in (workplace / "x.pt", trained / "model.ckpt"):
        shown = atomtrain(workplace, "show", str(file)).stdout
        for word in ("soap-bpnn", "Cu Au", "energy", "forces", "best validation", "in eV"):
            assert word in shown, (file, word, shown)
    done = atomtrain(
        workplace, "export", str(trained / "model.ckpt"), "-o", "y.ckpt", "--metadata", "meta.yaml"
    )
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(workplace / "y.ckpt")["metadata"]["name"] == "alloy"
