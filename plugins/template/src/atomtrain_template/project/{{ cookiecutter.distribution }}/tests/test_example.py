"""The example in the repository trains, and its model runs in ASE."""

import shutil
from pathlib import Path

import atomtrain
import pytest
from ase import Atoms
from ase.io import read
from metatomic_ase import MetatomicCalculator

EXAMPLE = Path(__file__).parent.parent / "example"


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alloy.xyz", {% if cookiecutter.level == "wrapper" %}"backbone.yaml", {% endif %}"options.yaml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    short = ["architecture.training.{{ "ridge=[1e-6]" if cookiecutter.level == "fit" else "num_epochs=2" }}"]
{%- if cookiecutter.level == "wrapper" %}
    atomtrain.train("backbone.yaml", output="backbone.pt", overrides=short)
{%- endif %}
    result = atomtrain.train("options.yaml", overrides=short)
    assert set(result.errors["test"]) == {"energy", "energy:forces", "energy:strain"}

    atoms = read("alloy.xyz", index=0)
    assert isinstance(atoms, Atoms)
    atoms.calc = MetatomicCalculator("model.pt")
    assert abs(atoms.get_forces().sum(0)).max() < 1e-3
