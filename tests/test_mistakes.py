"""The mistakes people make: one clear message, a non-zero exit, nothing trained, nothing left."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.alloy import options, write_crystal
from helpers.installing import install
from helpers.processes import atomtrain


def failing(folder: Path, *arguments: str, **env: Any) -> str:
    """The message of a command that must fail before it trains."""
    done = atomtrain(folder, *(arguments or ("train", "options.yaml")), **env)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Epoch" not in done.stdout
    assert not list(folder.glob("outputs/*/*/*"))
    assert not (folder / "model.pt").exists()
    return " ".join(done.stderr.split())


def rewrite(folder: Path, **changes: Any) -> None:
    (folder / "options.yaml").write_text(yaml.safe_dump(options(**changes)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("architecture.training.bach_size=4", "bach_size: unknown key; did you mean 'batch_size'?"),
        ("architecture.model.soap.cutof=4", "soap.cutof: unknown key; did you mean 'cutoff'?"),
        ("architecture.name=soap-bpn", "there is no architecture 'soap-bpn'; did you mean"),
        ("architecture.name=pet", "'pip install atomtrain-pet'"),
        ("training_set.systems.read_from=nowhere.xyz", "the file 'nowhere.xyz' does not exist"),
        ("training_set.systems.read_from=options.yaml", "'options.yaml' is of no"),
        ("training_set.targets.energy.key=enrgy", "has no 'enrgy'; did you mean 'energy'?"),
        ("training_set.targets.energy.unit=electronvolts", "is not a unit of energy"),
        ("training_set.systems.length_unit=parsec", "is not a unit of length metatomic knows"),
        ("validation_set=0.001", "0.001 of 24 structures leaves nothing for the validation set"),
        ("validation_set=40", "40 asked for, there are 24 structures"),
        ("architecture.training.loss=rmse", "there is no loss 'rmse'; did you mean 'mse'?"),
        ("architecture.training.learning_rate=fast", "expected a number, got 'fast'"),
        ("architecture.training.loss={enrgy: mse}", "there is no such target"),
        ("architecture.training.loss=masked_mse", "needs extra_data called 'energy_mask'"),
        ("base_precision=16", "does not train in 16 bits"),
    ],
)
def test_wrong_options(workplace: Path, override: str, message: str) -> None:
    assert message in failing(workplace, "train", "options.yaml", "-r", override)


def test_unknown_key_names_file_and_line(workplace: Path) -> None:
    text = (workplace / "options.yaml").read_text()
    (workplace / "options.yaml").write_text(text + "sed: 3\n")
    line = len(text.splitlines()) + 1
    assert f"options.yaml:{line}: sed: unknown key; did you mean 'seed'?" in failing(workplace)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without the device")
def test_device_not_there(workplace: Path) -> None:
    message = failing(workplace, "train", "options.yaml", "-r", "device=cuda")
    assert "'cuda' is not available on this machine" in message


def test_broken_plugin(workplace: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    source = "import a_package_nobody_has\n"
    install(site, "broken-arch", source, entry="broken", version="1.2")
    message = failing(
        workplace, "train", "options.yaml", "-r", "architecture.name=broken", site=site
    )
    assert "'broken' (broken-arch 1.2) is installed but cannot be imported" in message
    assert "a_package_nobody_has" in message
    listed = atomtrain(workplace, "architectures", site=site)
    assert listed.returncode == 0 and "soap-bpnn" in listed.stdout and "broken" in listed.stdout


def spoil(folder: Path, how: str) -> None:
    """The data with one thing wrong in frames 3 and 5."""
    frames = ase.io.read(folder / "crystal.xyz", ":")
    for k in (3, 5):
        atoms = frames[k]
        results = dict(atoms.calc.results)
        if how == "no energy":
            del results["energy"]
        elif how == "nan energy":
            results["energy"] = np.nan
        elif how == "infinite force":
            results["forces"] = np.full_like(results["forces"], np.inf)
        elif how == "no forces":
            del results["forces"]
        elif how == "no cell":
            atoms.cell[:] = 0
        atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write(folder / "crystal.xyz", frames, format="extxyz")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no energy", "'energy' is missing in 2 of 24 structures (frames 3, 5 of 'crystal.xyz')"),
        ("nan energy", "'energy' is NaN or infinite in frames 3, 5 of 'crystal.xyz'"),
        ("infinite force", "'forces' is NaN or infinite in frames 3, 5 of 'crystal.xyz'"),
        ("no forces", "'forces' is missing in 2 of 24 structures"),
        ("no cell", "frame 3 of 'crystal.xyz' is periodic but has no cell"),
    ],
)
def test_wrong_data(workplace: Path, how: str, message: str) -> None:
    spoil(workplace, how)
    assert message in failing(workplace)


def test_forces_of_the_wrong_shape(workplace: Path) -> None:
    frames = write_crystal(workplace / "crystal.xyz", 24)
    for atoms in frames:
        atoms.arrays["f2"] = atoms.get_forces()[:, :2]
    ase.io.write(workplace / "crystal.xyz", frames, format="extxyz")
    message = failing(
        workplace, "train", "options.yaml", "-r", "training_set.targets.energy.forces={key: f2}"
    )
    assert "'f2' of frame 0 in 'crystal.xyz' does not fit: it has shape (4, 2), expected" in message


def test_forces_asked_for_and_absent(workplace: Path) -> None:
    frames = write_crystal(workplace / "crystal.xyz", 24)
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
    ase.io.write(workplace / "crystal.xyz", frames, format="extxyz")
    assert "has no 'forces'" in failing(workplace)


def test_allowed_missing_labels_train(workplace: Path) -> None:
    spoil(workplace, "no energy")
    done = atomtrain(
        workplace, "train", "options.yaml", "-r", "training_set.targets.energy.allow_missing=true",
        "-r", "architecture.training.num_epochs=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "energy is masked for" in done.stdout


def test_unknown_element_for_a_finetune(trained: Path, workplace: Path) -> None:
    frames = write_crystal(workplace / "crystal.xyz", 24)
    for atoms in frames:
        results = dict(atoms.calc.results)
        atoms.numbers[0] = 47
        atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write(workplace / "crystal.xyz", frames, format="extxyz")
    tune = f"architecture.training.finetune={{read_from: {trained / 'model.ckpt'}}}"
    message = failing(workplace, "train", "options.yaml", "-r", tune)
    assert "the training data contain Ag, which the checkpoint" in message


def test_element_only_in_validation(workplace: Path) -> None:
    frames = write_crystal(workplace / "crystal.xyz", 24)
    for atoms in frames[:2]:
        results = dict(atoms.calc.results)
        atoms.numbers[0] = 47
        atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write(workplace / "crystal.xyz", frames, format="extxyz")
    message = failing(
        workplace, "train", "options.yaml", "-r", "validation_set={indices: [0, 1]}",
        "-r", "test_set=0",
    )  # fmt: skip
    assert "the validation set contains Ag (structure 0 of 'crystal.xyz')" in message


class Evil:
    """What a stranger's pickle does when it is loaded."""

    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.save({"format": Evil()}, p), "it was refused and nothing of it was run"),
        (lambda p: p.write_bytes(pickle.dumps(Evil())), "it was refused and nothing of it was run"),
        (lambda p: p.write_text("hello"), "is not a checkpoint"),
        (lambda p: torch.save({"weights": torch.ones(2)}, p), "is no atomtrain checkpoint"),
        (
            lambda p: torch.save({"format": "atomtrain checkpoint", "format_version": 99}, p),
            "install a newer atomtrain",
        ),
    ],
)
def test_what_is_no_checkpoint(workplace: Path, make: Any, message: str) -> None:
    make(workplace / "bad.ckpt")
    assert message in failing(workplace, "train", "options.yaml", "--restart", "bad.ckpt")
    assert message in failing(workplace, "export", "bad.ckpt")
    assert not (workplace / "owned").exists()


def test_checkpoint_of_a_newer_architecture(trained: Path, workplace: Path) -> None:
    from atomtrain.training.checkpoint import load_checkpoint, save_checkpoint

    state = load_checkpoint(trained / "model.ckpt")
    state["architecture"]["model_version"] = 7
    save_checkpoint(state, workplace / "new.ckpt")
    message = failing(workplace, "export", "new.ckpt")
    assert "holds version 7 of the model of 'soap-bpnn'" in message
    assert "knows versions up to 1; install a newer atomtrain-soap-bpnn" in message


def test_model_where_a_checkpoint_belongs(trained: Path, workplace: Path) -> None:
    (workplace / "m.ckpt").write_bytes((trained / "model.pt").read_bytes())
    arguments = ("train", "options.yaml", "--restart", "m.ckpt")
    assert "is an exported model, not a checkpoint" in failing(workplace, *arguments)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/model.pt", "the directory 'nowhere' does not exist"),
        ("model.ckpt", "should end in '.pt'"),
    ],
)
def test_output_that_cannot_be_written(workplace: Path, output: str, message: str) -> None:
    assert message in failing(workplace, "train", "options.yaml", "-o", output)


def test_eval_of_a_target_the_model_lacks(trained: Path, workplace: Path) -> None:
    (workplace / "eval.yaml").write_text(
        "systems: crystal.xyz\ntargets: {energy/pbe: {key: energy, unit: eV}}\n"
    )
    message = failing(workplace, "eval", str(trained / "model.pt"), "eval.yaml")
    assert "the model does not predict 'energy/pbe'; did you mean 'energy'?" in message
    assert not (workplace / "output.xyz").exists()
