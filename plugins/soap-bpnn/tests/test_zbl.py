"""ZBL in SOAP-BPNN: trained beside, evaluated with, exported with; errors that come early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.structures import graph_of
from metatomic_ase import MetatomicCalculator

from atomtrain import api
from atomtrain.errors import AtomtrainError, TargetError
from atomtrain.model import ZBL, forces_and_strain, with_leaves
from atomtrain.plugins.restore import restore
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain_soap_bpnn.hypers import ModelHypers
from atomtrain_soap_bpnn.model import SoapBpnn


def info(unit: str = "eV", types: tuple[int, ...] = (29, 79)) -> DatasetInfo:
    target = TargetInfo("energy", quantity="energy", unit=unit, gradients=("forces", "strain"))
    return DatasetInfo("angstrom", types, {"energy": target})


def write_data(path: Path) -> None:
    """Strained, shaken cells of Cu and Au, some so dense that atoms repel."""
    frames = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        atoms = bulk("Cu", "fcc", a=3.2 + 0.5 * rng.random(), cubic=True)
        atoms.numbers[seed % 4] = 79
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))),
                       scale_atoms=True)  # fmt: skip
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        results = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


def options(**target: Any) -> dict[str, Any]:
    return {
        "seed": 1,
        "base_precision": 64,
        "architecture": {
            "name": "soap-bpnn",
            "model": {
                "zbl": True,
                "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
                "bpnn": {"num_neurons_per_layer": 4},
            },
            "training": {"num_epochs": 2, "batch_size": 4},
        },
        "training_set": {
            "systems": {"read_from": "data.xyz", "length_unit": "angstrom"},
            "targets": {
                "energy": {
                    "key": "energy", "unit": "eV", "forces": True, "stress": True, **target
                }
            },
        },
        "validation_set": 0.25,
        "test_set": 0.25,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_from_options_to_ase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.xyz")
    Path("options.yaml").write_text(yaml.safe_dump(options()))
    result = api.train("options.yaml")
    predictor = restore(load_checkpoint("model.ckpt"), "export").predictor

    # the final errors are those of the exported model
    frames = ase.io.read("data.xyz", ":")
    chosen = Path(result.directory / "indices" / "test_0.txt").read_text().split()
    calculator = MetatomicCalculator("model.pt", device="cpu", check_consistency=True)
    per_atom, stresses = [], []
    for k in map(int, chosen):
        energy, stress = frames[k].get_potential_energy(), frames[k].get_stress(voigt=False)
        atoms = frames[k].copy()
        atoms.calc = calculator
        per_atom.append((atoms.get_potential_energy() - energy) / len(atoms))
        stresses.append(atoms.get_stress(voigt=False) - stress)
    errors = result.errors["test"]
    assert np.sqrt(np.mean(np.square(per_atom))) == pytest.approx(
        errors["energy"]["rmse"], rel=1e-7
    )
    assert np.sqrt(np.mean(np.square(stresses))) == pytest.approx(
        errors["energy:strain"]["rmse"], rel=1e-7
    )

    # two nuclei that close: nothing the network says matters
    dimer = Atoms("CuAu", positions=[[0, 0, 0], [0, 0, 0.05]])
    dimer.calc = calculator
    graph = with_leaves(graph_of([dimer]))
    repulsion = ZBL(predictor.dataset_info).energies(graph)
    forces, _ = forces_and_strain(repulsion, graph, strain=False, create_graph=False)
    assert dimer.get_potential_energy() == pytest.approx(float(repulsion.detach().sum()), rel=1e-3)
    np.testing.assert_allclose(dimer.get_forces(), forces, rtol=1e-3, atol=1e-6)

    # fine-tuning on labels shifted by 7 eV an atom starts from where the model is
    for atoms in frames:
        atoms.calc.results["energy"] += 7 * len(atoms)
    ase.io.write("data.xyz", frames, format="extxyz")
    changed = options()
    changed["architecture"]["training"] = {
        "num_epochs": 1, "batch_size": 4, "learning_rate": 1e-12,
        "finetune": {"read_from": "model.ckpt"},
    }  # fmt: skip
    Path("finetune.yaml").write_text(yaml.safe_dump(changed))
    tuned = api.train("finetune.yaml", output="tuned.pt")
    for key, old in errors.items():
        assert tuned.errors["test"][key]["rmse"] < 1.5 * old["rmse"]

    # restarting changes nothing
    changed = options()
    Path("more.yaml").write_text(yaml.safe_dump(changed))
    api.train("more.yaml", output="more.pt", restart="model.ckpt")
    again = load_checkpoint("more.ckpt")
    for name, weight in load_checkpoint("model.ckpt")["model"]["last"].items():
        assert torch.equal(weight, again["model"]["last"][name])


def test_errors_come_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.xyz")
    Path("options.yaml").write_text(yaml.safe_dump(options(unit="kcal/mol")))
    with pytest.raises(AtomtrainError, match=r"ZBL needs a target that is an energy in eV; there"):
        api.train("options.yaml")
    wrong = options()
    wrong["training_set"]["systems"]["length_unit"] = "nm"
    Path("options.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(AtomtrainError, match=r"ZBL needs lengths in angstrom, but .* 'nm'"):
        api.train("options.yaml")


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pair_list_grows_and_soap_stays(legacy: bool, dtype: torch.dtype) -> None:
    """Two caesium atoms repel from 4.88 angstrom on; SOAP looks as far as it was told to."""
    soap = {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 3.0}}
    types = (6, 55)
    models = []
    for zbl in (False, True):
        torch.manual_seed(0)
        hypers = ModelHypers(soap=soap, zbl=zbl, legacy=legacy)
        models.append(SoapBpnn(hypers, info(types=types)).to(dtype))
    short, long = models
    assert short.cutoff == 3.0 and long.cutoff == long.interaction_range == pytest.approx(4.88)
    atoms = bulk("C", "diamond", a=3.6).repeat(2)
    atoms.numbers[::5] = 55
    atoms.rattle(0.1, seed=0)
    for plain in (False, True):
        found = []
        for model in models:
            model.plain = plain
            graph = with_leaves(graph_of([atoms], cutoff=model.cutoff, dtype=dtype))
            energies = model(graph, ["energy"])["energy"][0]
            forces, _ = forces_and_strain(energies, graph, strain=False, create_graph=False)
            found.append((energies.detach(), forces))
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=tolerance)
        torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=tolerance)


def test_new_targets_get_it_too() -> None:
    model = SoapBpnn(ModelHypers(zbl=True), info())
    pbe = TargetInfo("energy/pbe", quantity="energy", unit="eV")
    model.retarget(DatasetInfo("angstrom", (29, 79), {**info().targets, "energy/pbe": pbe}))
    assert isinstance(model.baseline, ZBL) and model.baseline.targets == ["energy", "energy/pbe"]
    with pytest.raises(TargetError, match="energy in eV"):
        model.retarget(info(unit="hartree"))
