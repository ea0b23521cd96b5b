"""Evaluation of exported models: what ASE would get, frame by frame, in the units asked for."""

import logging
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.models import PairsByElement
from metatomic.torch import unit_conversion_factor
from metatomic_ase import MetatomicCalculator

from atomtrain.api import evaluate
from atomtrain.errors import DataError, OptionsError, OutputError, TargetError
from atomtrain.model import Predictor
from atomtrain.model.export import export_predictor, save_model
from atomtrain.targets import DatasetInfo, TargetInfo


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    energy = TargetInfo("energy", quantity="energy", unit="eV", gradients=("forces", "strain"))
    info = DatasetInfo("angstrom", (1, 6, 8), {"energy": energy})
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(export_predictor(Predictor(PairsByElement(info).double(), info), {}), path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labelled(seed: int = 0) -> list[ase.Atoms]:
    """Crystals of several sizes and a skewed cell, with invented labels."""
    rng = np.random.default_rng(seed)
    frames = []
    for repeats in (1, 2, 3):
        atoms = bulk("C").repeat((repeats, 1, 1))
        skewed = np.array(atoms.cell) @ (np.eye(3) + rng.normal(0, 0.03, (3, 3)))
        atoms.set_cell(skewed, scale_atoms=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=rng.normal(),
            forces=rng.normal(size=(len(atoms), 3)),
            stress=rng.normal(size=6),
        )
        frames.append(atoms)
    return frames


def assert_all_there(found, frames: list[ase.Atoms], tolerance: float) -> None:
    """Energies of four frames, forces of all their atoms, stress of one: all as they were written."""
    assert found.errors["energy"]["count"] == 4
    assert found.errors["energy:forces"]["count"] == 3 * sum(map(len, frames))
    assert found.errors["energy:strain"]["count"] == 3 * 9
    for key, errors in found.errors.items():
        assert errors["rmse"] < tolerance, key


@pytest.mark.parametrize("batch_size", [1, 2])
def test_errors_and_predictions_are_those_of_ase(folder, model_file, batch_size):
    frames = labelled()
    ase.io.write("data.xyz", frames)
    Path("eval.yaml").write_text("data.xyz\n")
    (result,) = evaluate(
        model_file, "eval.yaml", output="out.xyz", batch_size=batch_size, check_consistency=True
    )

    calculator = MetatomicCalculator(str(model_file), device="cpu")
    energy, forces, stress = [], [], []
    for label, written in zip(
        ase.io.read("data.xyz", ":"), ase.io.read("out.xyz", ":"), strict=True
    ):
        atoms = label.copy()
        atoms.calc = calculator
        assert written.get_potential_energy() == pytest.approx(
            atoms.get_potential_energy(), abs=1e-7
        )
        np.testing.assert_allclose(written.get_forces(), atoms.get_forces(), atol=1e-7)
        np.testing.assert_allclose(written.get_stress(), atoms.get_stress(), atol=1e-7)
        energy.append((atoms.get_potential_energy() - label.get_potential_energy()) / len(atoms))
        forces.append((atoms.get_forces() - label.get_forces()).ravel())
        stress.append((atoms.get_stress(voigt=False) - label.get_stress(voigt=False)).ravel())
    for key, error in (("energy", energy), ("energy:forces", forces), ("energy:strain", stress)):
        error = np.hstack(error)
        assert result.errors[key]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-9)
        assert result.errors[key]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-9)
        assert result.errors[key]["count"] == len(error)
    assert result.seconds_per_atom > 0


def test_totals_of_the_training_are_totals_here(folder, model_file, caplog):
    """What ``per_structure_targets`` named is shown as training showed it."""
    energy = TargetInfo("energy", quantity="energy", unit="eV")
    info = DatasetInfo("angstrom", (1, 6, 8), {"energy": energy})
    trained = {"hypers": {"trainer": {"per_structure_targets": ["energy"]}}}
    exported = export_predictor(Predictor(PairsByElement(info).double(), info), {"extra": trained})
    save_model(exported, "totals.pt")
    frames = labelled()
    ase.io.write("data.xyz", frames)
    Path("eval.yaml").write_text("systems: data.xyz\ntargets: {energy: {}}\n")
    (per_atom,) = evaluate(model_file, "eval.yaml", output=None)
    with caplog.at_level(logging.INFO, "atomtrain"):
        (total,) = evaluate("totals.pt", "eval.yaml", output=None)
    label = [[atoms.get_potential_energy()] for atoms in ase.io.read("data.xyz", ":")]
    error = total.predictions["energy"] - torch.tensor(label, dtype=torch.float64)
    counts = torch.tensor([[len(atoms)] for atoms in frames])
    assert total.errors["energy"]["rmse"] == pytest.approx(float(error.square().mean().sqrt()))
    assert per_atom.errors["energy"]["mae"] == pytest.approx(float((error / counts).abs().mean()))
    assert f"energy RMSE {1e3 * total.errors['energy']['rmse']:.4g} meV," in caplog.text


def test_units_of_the_data_are_converted(folder, model_file):
    """Lengths in bohr and energies in kcal/mol: the same physics, so exactly converted errors."""
    atoms = labelled()[1]
    ase.io.write("data.xyz", [atoms])
    bohr = unit_conversion_factor("angstrom", "bohr")
    kcal = unit_conversion_factor("eV", "kcal/mol")
    other = atoms.copy()
    other.set_cell(atoms.cell * bohr, scale_atoms=True)
    other.calc = SinglePointCalculator(
        other,
        energy=atoms.get_potential_energy() * kcal,
        forces=atoms.get_forces() * kcal / bohr,
        stress=atoms.get_stress() * kcal / bohr**3,
    )
    ase.io.write("other.xyz", [other])
    Path("eval.yaml").write_text(
        "- data.xyz\n"
        "- systems: {read_from: other.xyz, length_unit: bohr}\n"
        "  targets: {energy: {unit: kcal/mol}}\n"
    )
    ours, theirs = evaluate(model_file, "eval.yaml", output=None)
    for key, factor in (
        ("energy", kcal),
        ("energy:forces", kcal / bohr),
        ("energy:strain", kcal / bohr**3),
    ):
        expected = ours.errors[key]["rmse"] * factor
        assert theirs.errors[key]["rmse"] == pytest.approx(expected, rel=1e-6)


def test_without_targets_there_are_predictions_only(folder, model_file):
    water = molecule("H2O")
    ase.io.write("data.xyz", [water, molecule("CH3CH2OH")])
    Path("eval.yaml").write_text("systems: data.xyz\n")
    (result,) = evaluate(model_file, "eval.yaml", output="out.xyz", batch_size=8)
    assert result.errors == {}
    written = ase.io.read("out.xyz", ":")
    water.calc = MetatomicCalculator(str(model_file), device="cpu")
    assert written[0].get_potential_energy() == pytest.approx(water.get_potential_energy())
    assert written[1].get_forces().shape == (9, 3)
    assert "stress" not in written[0].calc.results


def test_an_earlier_file_is_replaced_aloud_and_never_by_half(
    folder, model_file, caplog, monkeypatch
):
    ase.io.write("data.xyz", molecule("H2O"))
    Path("eval.yaml").write_text("systems: data.xyz\n")
    Path("out.xyz").write_text("earlier")
    with caplog.at_level(logging.INFO, "atomtrain"), monkeypatch.context() as patch:
        patch.setattr(ase.io, "write", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate(model_file, "eval.yaml", output="out.xyz")
    assert Path("out.xyz").read_text() == "earlier"
    assert sorted(p.name for p in folder.iterdir()) == ["data.xyz", "eval.yaml", "out.xyz"]
    caplog.clear()
    with caplog.at_level(logging.INFO, "atomtrain"):
        evaluate(model_file, "eval.yaml", output="out.xyz")
    assert "replacing the earlier 'out.xyz'" in caplog.text
    assert len(ase.io.read("out.xyz")) == 3


@pytest.mark.parametrize("output", ["out.mts", "out.zip", "out/"])
def test_other_formats_hold_what_xyz_holds(folder, model_file, output):
    frames = [*labelled(), molecule("CH3CH2OH")]
    ase.io.write("data.xyz", frames)
    Path("eval.yaml").write_text("systems: data.xyz\n")
    (result,) = evaluate(model_file, "eval.yaml", output=output, batch_size=2)
    assert str(result.output) == output.rstrip("/")

    file = {"out.mts": "out_energy.mts"}.get(output, output)
    Path("again.yaml").write_text(
        f"systems: {'data.xyz' if file.endswith('mts') else file}\n"
        f"targets: {{energy: {{read_from: {file}, forces: true, stress: true}}}}\n"
    )
    (again,) = evaluate(model_file, "again.yaml", output=None, batch_size=2)
    assert_all_there(again, frames, 1e-6)  # single precision of a folder


def test_cells_are_written_as_they_were(folder, model_file):
    """Also along directions that are not periodic, where a model must not see them."""
    atoms = labelled()[2]
    atoms.pbc = [True, True, False]
    ase.io.write("data.xyz", atoms)
    Path("eval.yaml").write_text("systems: data.xyz\n")
    evaluate(model_file, "eval.yaml", output="out.xyz")
    written = ase.io.read("out.xyz")
    np.testing.assert_allclose(written.cell.array, ase.io.read("data.xyz").cell.array)
    assert written.pbc.tolist() == [True, True, False]


@pytest.mark.parametrize("output", ["out.xyz", "out.zip", "out.db", "out/"])
def test_gradients_that_are_off_are_not_written(folder, model_file, output):
    ase.io.write("data.xyz", labelled()[2])
    Path("eval.yaml").write_text("{systems: data.xyz, targets: {energy: {forces: false}}}")
    (result,) = evaluate(model_file, "eval.yaml", output=output)
    assert set(result.predictions) == {"energy", "energy:strain", "energy:stress"}
    Path("again.yaml").write_text(f"systems: {output}\ntargets: {{energy: {{key: energy}}}}\n")
    (result,) = evaluate(model_file, "again.yaml", output=None)
    assert set(result.errors) == {"energy", "energy:strain"}


def test_several_sections_get_a_file_each(folder, model_file):
    ase.io.write("a.xyz", molecule("H2O"))
    ase.io.write("b.xyz", molecule("CH4"))
    Path("eval.yaml").write_text("- {systems: a.xyz}\n- {systems: b.xyz}\n")
    results = evaluate(model_file, "eval.yaml", output="out.xyz")
    assert [r.output for r in results] == [Path("out_0.xyz"), Path("out_1.xyz")]
    assert [len(ase.io.read(r.output)) for r in results] == [3, 5]


@pytest.mark.parametrize(
    ("text", "arguments", "error", "message"),
    [
        (
            "{systems: w.xyz, targets: {energy/pbe: {key: energy, forces: false, stress: false}}}",
            {},
            TargetError,
            "the model does not predict 'energy/pbe'; did you mean 'energy'",
        ),
        ("{systems: salt.xyz}", {}, DataError, "contains Na, Cl, which the model does not know"),
        (
            "{systems: w.xyz}",
            {"output": "out.npz"},
            OutputError,
            "written as .xyz, .extxyz, .traj, .db, .json, .zip, .mts",
        ),
        ("{systems: w.xyz}", {"output": "w.xyz"}, OutputError, "'w.xyz' is one of the files"),
        ("{systems: w.xyz}", {"output": "no/out.xyz"}, OutputError, "there is no directory 'no'"),
        ("{systems: w.xyz}", {"batch_size": 0}, OptionsError, "batch size must be at least 1"),
        ("{systems: none.xyz}", {}, DataError, "none.xyz"),
    ],
)
def test_mistakes(folder, model_file, text, arguments, error, message):
    water = molecule("H2O")
    water.calc = SinglePointCalculator(water, energy=1.0)
    ase.io.write("w.xyz", water)
    ase.io.write("salt.xyz", molecule("NaCl"))
    Path("eval.yaml").write_text(text)
    with pytest.raises(error, match=message):
        evaluate(model_file, "eval.yaml", **{"output": "out.xyz", **arguments})
    assert not Path("out.xyz").exists()


@pytest.mark.parametrize("output", ["out.traj", "out.db", "out.json", "out.xyz.gz", "OUT.EXTXYZ"])
def test_formats_of_ase_hold_what_was_predicted(folder, model_file, output):
    frames = [*labelled(), molecule("CH3CH2OH")]
    ase.io.write("data.xyz", frames)
    Path("eval.yaml").write_text("systems: data.xyz\n")
    evaluate(model_file, "eval.yaml", output=output, batch_size=2)
    Path("again.yaml").write_text(
        f"systems: {output}\ntargets: {{energy: {{forces: true, stress: true}}}}\n"
    )
    (again,) = evaluate(model_file, "again.yaml", output=None, batch_size=2)
    assert_all_there(again, frames, 1e-7)


def test_several_files_are_evaluated_as_one(folder, model_file, caplog):
    """With wildcards and lists, labels in files of their own, and cells of the right structures."""
    frames = labelled()
    frames[1].pbc = frames[1].calc.atoms.pbc = [True, True, False]
    ase.io.write("all.xyz", frames)
    Path("d").mkdir()
    ase.io.write("d/a.xyz", frames[:1])
    ase.io.write("d/b.traj", frames[1:])
    Path("one.yaml").write_text("{systems: all.xyz, targets: {energy: {}}}\n")
    Path("several.yaml").write_text(
        "- {systems: [d/a.xyz, d/b.traj], targets: {energy: {read_from: 'd/*'}}}\n"
        "- {systems: 'd/*', targets: {energy: all.xyz}, indices: [0, 2]}\n"
    )
    (one,) = evaluate(model_file, "one.yaml", output="one.db", batch_size=3)
    with caplog.at_level(logging.INFO, "atomtrain"):
        several, chosen = evaluate(model_file, "several.yaml", output="p.db", batch_size=3)
    assert "d/a.xyz, d/b.traj: energy RMSE" in caplog.text
    assert several.errors["energy"]["rmse"] == pytest.approx(one.errors["energy"]["rmse"])
    torch.testing.assert_close(chosen.predictions["energy"], one.predictions["energy"][[0, 2]])
    for ours, theirs in zip(ase.io.read("p_0.db", ":"), ase.io.read("one.db", ":"), strict=True):
        np.testing.assert_allclose(ours.cell.array, theirs.cell.array, atol=1e-7)
    Path("alas.yaml").write_text("systems: [d/a.xyz, salt.xyz]\n")
    ase.io.write("salt.xyz", molecule("NaCl"))
    with pytest.raises(DataError, match=r"structure 0 of 'salt.xyz' contains Na, Cl, which the mo"):
        evaluate(model_file, "alas.yaml", output=None)
    with pytest.raises(OutputError, match=r"'d/b.traj' is one of the files that are evaluated"):
        Path("eval.yaml").write_text("systems: d/*\n")
        evaluate(model_file, "eval.yaml", output="d/b.traj")


def test_what_was_found_is_in_the_log(folder, model_file, caplog):
    frames = labelled()[:1]
    forces = frames[0].calc.results.pop("forces")
    frames[0].arrays["REF_forces"] = forces
    ase.io.write("data.xyz", frames)
    Path("eval.yaml").write_text("{systems: data.xyz, targets: {energy: {}}}\n")
    with caplog.at_level(logging.INFO, "atomtrain"):
        evaluate(model_file, "eval.yaml", output=None)
    said = {
        record.levelname: record.message for record in caplog.records if "of 'en" in record.message
    }
    assert said["INFO"] == "stress of 'energy' in 'data.xyz': found"
    assert said["WARNING"].endswith("'REF_forces': to take that, write forces: {key: REF_forces}")
