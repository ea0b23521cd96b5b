"""``atomtrain init`` on files whose truth is known: what it writes trains, and says why and how sure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.build
import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from atomtrain import api
from atomtrain.errors import AtomtrainError, DataError
from atomtrain_inspect.choices import Given
from atomtrain_inspect.draft import drafted
from atomtrain_inspect.init import app
from atomtrain_inspect.options_text import written


def molecules(n: int, **info: Sequence[Any]) -> list[Atoms]:
    """Water and methane in turn, rattled, with values of structures."""
    found = []
    for k in range(n):
        atoms = ase.build.molecule(("H2O", "CH4")[k % 2])
        atoms.rattle(0.05, seed=k)
        atoms.info = {key: values[k % len(values)] for key, values in info.items()}
        found.append(atoms)
    return found


def with_energies(frames: list[Atoms], factor: float = 1.0) -> list[Atoms]:
    """Energies of all electrons in hartree, times a factor, with a spring for each pair, and their forces."""
    for atoms in frames:
        start = ase.build.molecule("H2O" if len(atoms) == 3 else "CH4")
        vectors, distances = atoms.get_all_distances(vector=True), atoms.get_all_distances()
        long = distances - start.get_all_distances()
        energy = (-76.4 if len(atoms) == 3 else -40.5) + 0.3 * (long**2).sum()
        slopes = 1.2 * long / (distances + np.eye(len(atoms)))
        forces = (slopes[:, :, None] * vectors).sum(1)
        atoms.calc = SinglePointCalculator(atoms, energy=factor * energy, forces=factor * forces)
    return frames


def trajectory(n: int) -> list[Atoms]:
    """A crystal whose atoms swing slowly."""
    start = ase.build.bulk("Cu", "fcc", 3.6, cubic=True).repeat((2, 1, 1))
    ways = np.random.default_rng(1).normal(size=(2, len(start), 3))
    found = []
    for k in range(n):
        atoms = start.copy()
        atoms.positions += 0.2 * (ways[0] * np.sin(0.07 * k) + ways[1] * np.cos(0.05 * k))
        atoms.calc = SinglePointCalculator(atoms, energy=float(np.sin(k)))
        found.append(atoms)
    return found


class Asked(list[str]):
    """Keeps questions, and gives answers or those by default."""

    def __init__(self, **answers: str) -> None:
        super().__init__()
        self.answers = answers

    def __call__(self, question: str, default: str, answers: Sequence[str]) -> str:
        self.append(question)
        given = next((a for word, a in self.answers.items() if word in question.lower()), default)
        assert not answers or given in answers
        return given


def made(*paths: Path, ask: Asked | None = None, **given: Any) -> tuple[str, dict[str, Any]]:
    """The text that is written for files, and what it says."""
    asked = Asked() if ask is None else ask
    draft = drafted(Given([str(path) for path in paths], **given), asked)
    text = written(draft, paths[0].with_name("options.yaml"))
    return text, yaml.safe_load(text)


def test_an_energy_with_all_about_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files, keys of other names, labels that lack, a unit that energies tell, forces of the wrong sign."""
    monkeypatch.chdir(tmp_path)
    for name, n in (("a.xyz", 30), ("b.xyz", 10), ("my_test.xyz", 8)):
        frames = with_energies(molecules(n, kind=["x"]))
        for atoms in frames:
            atoms.info["REF_energy"] = atoms.calc.results["energy"]
            atoms.arrays["REF_forces"] = -atoms.calc.results["forces"]
            atoms.calc = None
        if name == "a.xyz":
            del frames[3].arrays["REF_forces"]
        ase.io.write(name, frames)
    text, options = made(Path("a.xyz"), Path("b.xyz"), Path("my_test.xyz"))
    section = options["training_set"]
    assert section["systems"]["read_from"] == ["a.xyz", "b.xyz"]
    energy = section["targets"]["energy"]
    assert (energy["key"], energy["unit"]) == ("REF_energy", "hartree")
    assert energy["forces"] == {"key": "REF_forces", "allow_missing": True}
    assert "unit: hartree # certain" in text and "1 structures have none" in text
    said = " ".join(text.replace("#", " ").split())
    assert "SERIOUS: 'energy' in 'a.xyz'" in said and "the forces have the wrong sign" in said
    assert options["test_set"]["systems"]["read_from"] == "my_test.xyz"
    assert options["validation_set"] == 0.1 and "'my_test.xyz' is for test, by its name" in text
    assert options["architecture"]["name"] in text


def test_it_trains_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("a.xyz", with_energies(molecules(24, phase=["gas", "liquid", "gas"])))
    Path(".vscode").mkdir()
    Path(".vscode/atomtrain.schema.json").write_text("{}")
    command = ["a.xyz", "--no-input", "-a", "ace"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0 and "written: options.yaml" in done.output
    text = Path("options.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=.vscode/atomtrain.schema.json\n")
    once = ["architecture.training.num_epochs=1", "final_eval=false"]
    result = api.train("options.yaml", overrides=once)
    assert result.checkpoint.is_file()
    assert "# mtt::phase: # gas (16), liquid (8)" in text

    with pytest.raises(AtomtrainError, match="is there already: give --force"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    for wrong, words in (
        (["a.xyz", "-o", "options.txt"], "should end in '.yaml'"),
        (["options.yaml", "-o", "b.yaml"], "is an options file"),
        (["no.xyz", "-o", "b.yaml"], "does not exist"),
        (["a.xyz", "-o", "b.yaml", "-k", "energy=enrgy"], "has nothing called so"),
        (["a.xyz", "-o", "b.yaml", "--unit", "furlong"], "--unit 'furlong' cannot be used"),
        (["a.xyz", "-o", "b.yaml", "-a", "acce"], "did you mean 'ace'"),
        (["a.xyz", "-o", "b.yaml", "-a", "classifier"], "model_checkpoint"),
        (["a.xyz", "-o", "b.yaml", "--test", "a.xyz"], "no file is left to train on"),
    ):
        with pytest.raises(AtomtrainError, match=words):
            CliRunner().invoke(app, wrong, catch_exceptions=False)
        assert not Path("b.yaml").exists()


def test_sets_that_do_not_leak(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "md.xyz", trajectory(60))
    text, options = made(tmp_path / "md.xyz")
    assert options["validation_set"]["by"] == "block" and options["test_set"]["by"] == "block"
    assert "frames of trajectories" in text
    ask = Asked(drawn="random")
    assert made(tmp_path / "md.xyz", ask=ask)[1]["validation_set"] == 0.1
    assert len(ask) <= 5

    runs = [k // 4 for k in range(40)]
    ase.io.write(tmp_path / "groups.xyz", with_energies(molecules(40, run=runs)))
    _, options = made(tmp_path / "groups.xyz")
    assert options["validation_set"] == {"fraction": 0.1, "by": "group", "key": "run"}
    ase.io.write(tmp_path / "few.xyz", with_energies(molecules(40, config_type=["a", "b", "c"])))
    assert made(tmp_path / "few.xyz")[1]["validation_set"] == 0.1
    ase.io.write(tmp_path / "one.xyz", with_energies(molecules(1)))
    assert made(tmp_path / "one.xyz")[1]["validation_set"] == 0


def test_what_is_no_energy(tmp_path: Path) -> None:
    frames = molecules(40, stable=[1, 0, 0], gap=[2.0, 3.5, 4.1])
    for k, atoms in enumerate(frames):
        atoms.arrays["dipole"] = np.random.default_rng(k).normal(size=(len(atoms), 3))
        atoms.arrays["dipole_mask"] = (atoms.numbers > 1).astype(int)
    ase.io.write(tmp_path / "a.xyz", frames)
    text, options = made(tmp_path / "a.xyz")
    assert options["training_set"]["targets"] == {
        "mtt::stable": {"key": "stable", "type": "binary"}
    }
    assert "# mtt::gap:" in text and "There are more values" in text
    _, options = made(tmp_path / "a.xyz", ask=Asked(learnt="dipole"))
    target = options["training_set"]["targets"]["mtt::dipole"]
    assert target["type"] == {"cartesian": {"rank": 1}} and target["sample_kind"] == "atom"
    assert options["training_set"]["extra_data"]["mtt::dipole_mask"]["key"] == "dipole_mask"
    ase.io.write(tmp_path / "nothing.xyz", molecules(5))
    with pytest.raises(AtomtrainError, match="no energy, and nothing else"):
        made(tmp_path / "nothing.xyz")
    for atoms in frames:
        atoms.info, atoms.arrays = {}, {k: atoms.arrays[k] for k in ("numbers", "positions")}
        atoms.arrays["forces"] = atoms.positions
    ase.io.write(tmp_path / "forces.xyz", frames, columns=["symbols", "positions", "forces"])
    with pytest.raises(AtomtrainError, match="has forces but no energy"):
        made(tmp_path / "forces.xyz")


def test_elements_that_nothing_is_learnt_of(tmp_path: Path) -> None:
    frames = with_energies(molecules(20))
    ase.io.write(tmp_path / "train.xyz", frames)
    for atoms in frames[3:]:
        atoms.symbols[0] = "Au"
    ase.io.write(tmp_path / "test.xyz", frames)
    message = (
        r"Au \(in structure 3 of '.*test\.xyz', which is for test\) is in no structure to train on"
    )
    with pytest.raises(DataError, match=message):
        made(tmp_path / "train.xyz", tmp_path / "test.xyz")


def test_units_that_nobody_tells(tmp_path: Path) -> None:
    frames = with_energies(molecules(20))
    for k, atoms in enumerate(frames):
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 * len(atoms) + 0.01 * k)
    ase.io.write(tmp_path / "a.xyz", frames)
    text, options = made(tmp_path / "a.xyz")
    assert "unit" not in options["training_set"]["targets"]["energy"]
    assert "TO DO: the data do not tell it" in text and "has no forces" in text
    ask = Asked(unit="kJ/mol")
    assert (
        made(tmp_path / "a.xyz", ask=ask)[1]["training_set"]["targets"]["energy"]["unit"]
        == "kJ/mol"
    )
    for atoms in frames:
        atoms.positions /= 0.529177
    ase.io.write(tmp_path / "bohr.xyz", frames)
    assert "NOT CERTAIN" in made(tmp_path / "bohr.xyz")[0]
    text, options = made(tmp_path / "bohr.xyz", length_unit="bohr")
    assert options["training_set"]["systems"]["length_unit"] == "bohr" and "NOT CERTAIN" not in text


def test_batches_fit_structures(tmp_path: Path) -> None:
    frames = with_energies(molecules(40))
    big = ase.build.bulk("C", cubic=True).repeat((4, 4, 4))
    big.calc = SinglePointCalculator(big, energy=1.0)
    ase.io.write(tmp_path / "a.xyz", [*frames, big])
    _, options = made(tmp_path / "a.xyz", architecture="ace")
    assert options["architecture"]["training"]["max_atoms_per_batch"] == 512
