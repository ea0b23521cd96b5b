"""``atomtrain inspect`` on data whose truth is known: a model of pairs, and files of it that are spoiled on purpose."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet
from typer.testing import CliRunner

from atomtrain.api import convert
from atomtrain.errors import AtomtrainError
from atomtrain_inspect import Report, inspect_files, inspect_options
from atomtrain_inspect.command import app
from atomtrain_inspect.energies import all_electron, bound, composition, outliers, unit_of_totals
from atomtrain_inspect.sets import RUN, sample

MD, STRAINED = 30, 24
"""frames of a trajectory, and strained copies after them"""


def labelled(atoms: Atoms) -> Atoms:
    """A copy with energy, forces and, in a crystal, stress."""
    found = atoms.copy()
    found.calc = LennardJones(sigma=2.4, epsilon=0.4, rc=4.4, smooth=True, ro=3.6)
    values = {"energy": found.get_potential_energy(), "forces": found.get_forces()}
    if found.pbc.all():
        values["stress"] = found.get_stress()
    found.info, found.arrays = {}, {k: found.arrays[k] for k in ("numbers", "positions")}
    found.calc = SinglePointCalculator(found, **values)
    return found


@pytest.fixture(scope="module")
def crystal() -> list[Atoms]:
    """A trajectory of an alloy, and then strained copies of it."""
    rng = np.random.default_rng(3)
    atoms = ase.build.bulk("Ni", "fcc", 3.72, cubic=True).repeat((2, 2, 1))
    atoms.symbols[::3] = "Cu"
    start = atoms.copy()
    atoms.calc = LennardJones(sigma=2.4, epsilon=0.4, rc=4.4, smooth=True, ro=3.6)
    atoms.rattle(0.05, seed=1)
    frames = []
    dynamics = VelocityVerlet(atoms, 4 * units.fs)
    for _ in range(MD):
        dynamics.run(1)
        frames.append(labelled(atoms))
    for k in range(STRAINED):
        strain = rng.normal(0, 0.004 if k % 2 else 0.001, (3, 3))
        strain[np.diag_indices(3)] = rng.normal(0, 0.001 if k % 2 else 0.006, 3)
        strained = start.copy()
        strained.set_cell(start.cell @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
        strained.rattle(0.005, seed=k)
        frames.append(labelled(strained))
    return frames


@pytest.fixture(scope="module")
def molecules() -> list[Atoms]:
    """Rattled copies of a cluster."""
    start = Atoms("NiCuNiCuNiCu", ase.build.fcc111("Ni", (2, 3, 1), 3.7).positions)
    start.positions[::2, 2] += 1.2
    found = []
    for k in range(40):
        atoms = start.copy()
        atoms.rattle(0.06, seed=k)
        found.append(labelled(atoms))
    return found


def changed(
    frames: Sequence[Atoms], change: Callable[[int, Atoms, dict[str, np.ndarray]], object]
) -> list[Atoms]:
    """Copies whose structure and labels a function has changed in place."""
    found = []
    for k, atoms in enumerate(frames):
        new = atoms.copy()
        values = {key: np.array(value) for key, value in atoms.calc.results.items()}
        change(k, new, values)
        if values:
            new.calc = SinglePointCalculator(new, **values)
        found.append(new)
    return found


def scaled(name: str, factor: float) -> Callable[[int, Atoms, dict[str, np.ndarray]], None]:
    def change(k: int, atoms: Atoms, values: dict[str, np.ndarray]) -> None:
        values[name] = values[name] * factor

    return change


@pytest.fixture
def inspected(tmp_path: Path) -> Callable[..., Report]:
    def run(frames: Sequence[Atoms], **options: str) -> Report:
        ase.io.write(tmp_path / "data.xyz", list(frames), format="extxyz")
        return inspect_files([str(tmp_path / "data.xyz")], unit="eV", **options)

    return run


def checks(report: Report, least: str = "warning") -> list[str]:
    """Names of what was found, without notes."""
    return [f.check for f in report.findings if f.severity != "note" or least == "note"]


def facts(report: Report) -> str:
    return "\n".join(line for lines in report.facts.values() for line in lines)


def only(report: Report) -> str:
    """The sentence of the one thing that was found."""
    found = [f for f in report.findings if f.severity != "note"]
    assert len(found) == 1, [f.text for f in found]
    return found[0].text


Inspected = Callable[..., Report]


def test_sound_data_have_no_findings(
    inspected: Inspected, crystal: list[Atoms], molecules: list[Atoms]
) -> None:
    report = inspected(crystal)
    assert checks(report) == [], report.findings
    said = facts(report)
    assert "forces in" in said and "belong to the energies" in said and "stress in" in said
    assert "trajectory" in checks(report, "note")
    report = inspected(molecules)
    assert checks(report) == [], report.findings
    assert "belong to the energies" in facts(report)
    assert "trajectory" not in checks(report, "note")


def test_forces_of_the_other_sign(
    inspected: Inspected, crystal: list[Atoms], molecules: list[Atoms]
) -> None:
    for frames in (crystal, molecules):
        said = only(inspected(changed(frames, scaled("forces", -1))))
        assert "forces have the wrong sign" in said and "data.xyz'" in said


@pytest.mark.parametrize(
    "name, factor, words",
    [
        ("energy", 1 / units.Hartree, "energies are in hartree, forces in eV/angstrom"),
        ("energy", units.mol / units.kcal, "energies are in kcal/mol"),
        ("forces", units.Bohr / units.Hartree, "forces are in hartree/bohr"),
        ("forces", units.mol / units.kcal, "forces are in kcal/mol/angstrom"),
        ("energy", 1 / 16, "energies are per atom"),
    ],
)
def test_units_that_do_not_belong_together(
    inspected: Inspected, crystal: list[Atoms], name: str, factor: float, words: str
) -> None:
    frames = changed(crystal[:MD], lambda k, atoms, values: values.pop("stress"))
    assert words in only(inspected(changed(frames, scaled(name, factor))))


VASP = [0, 1, 2, 5, 3, 4]


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda s, v: -s, "wrong sign (positive under compression)"),
        (lambda s, v: s / units.GPa, "in GPa"),
        (
            lambda s, v: -s / units.GPa * 10,
            "wrong sign (positive under compression) and it is in kbar",
        ),
        (lambda s, v: -s * v, "it is a virial"),
        (lambda s, v: s[VASP], "xx, yy, zz, xy, yz, xz (VASP)"),
    ],
)
def test_stress_that_is_none(
    inspected: Inspected,
    crystal: list[Atoms],
    spoil: Callable[[np.ndarray, float], np.ndarray],
    words: str,
) -> None:
    def change(k: int, atoms: Atoms, values: dict[str, np.ndarray]) -> None:
        values["stress"] = spoil(values["stress"], atoms.get_volume())

    report = inspected(changed(crystal, change))
    said = [f for f in report.findings if f.check == "stress"]
    assert len(said) == 1 and words in said[0].text and said[0].severity == "serious"
    assert not {"forces-sign", "forces-unit"} & set(checks(report))


def test_frames_that_changed_places(inspected: Inspected, crystal: list[Atoms]) -> None:
    frames = list(crystal)
    frames[6], frames[19] = frames[19], frames[6]
    said = only(inspected(frames))
    assert "not where their trajectory would have them" in said
    assert "structure 6 of" in said and "at home at structure 19" in said


def test_labels_that_changed_places(
    inspected: Inspected, crystal: list[Atoms], molecules: list[Atoms]
) -> None:
    for frames in (crystal, molecules):
        spoiled = changed(frames, lambda k, a, v: None)
        spoiled[6].calc.results, spoiled[19].calc.results = (
            spoiled[19].calc.results,
            spoiled[6].calc.results,
        )
        report = inspected(spoiled)
        assert "labels-exchanged" in checks(report), facts(report)
        found = next(f for f in report.findings if f.check == "labels-exchanged")
        assert {frame for _, frame in found.places} == {6, 19}


def test_energies_of_the_next_frame(inspected: Inspected, crystal: list[Atoms]) -> None:
    energies = np.roll([atoms.calc.results["energy"] for atoms in crystal[:MD]], -1)

    def change(k: int, atoms: Atoms, values: dict[str, np.ndarray]) -> None:
        values["energy"] = energies[k]

    assert "the energy of the one 1 after the one that its forces are of" in only(
        inspected(changed(crystal[:MD], change))
    )


def test_shuffled_atoms(inspected: Inspected, crystal: list[Atoms]) -> None:
    nickel = np.flatnonzero(crystal[0].symbols == "Ni")
    within = np.arange(16)
    within[nickel] = np.roll(nickel, 1)  # the same elements in order, yet other atoms
    for order in (within, np.random.default_rng(0).permutation(16)):
        frames = list(crystal)
        new = frames[9][order]
        values = dict(frames[9].calc.results)
        values["forces"] = values["forces"][order]
        new.calc = SinglePointCalculator(new, **values)
        frames[9] = new
        said = only(inspected(frames))
        assert "another order" in said and "structure 9 of" in said


def test_copies_and_near_copies(inspected: Inspected, molecules: list[Atoms]) -> None:
    report = inspected([*molecules, molecules[4]])
    assert "structure 40 of" in only(report) and "the same as structure 4 of" in only(report)
    near = molecules[4].copy()
    near.positions += 1e-3 * np.random.default_rng(0).normal(size=(6, 3))
    near.rotate(40, (1, 2, 3))
    report = inspected([*molecules, labelled(near)])
    assert checks(report) == []
    note = next(f for f in report.findings if f.check == "near-duplicates")
    assert {frame for _, frame in note.places} == {40}


def test_outliers(inspected: Inspected, molecules: list[Atoms]) -> None:
    spoiled = changed(molecules, lambda k, a, v: None)
    spoiled[11].calc.results["energy"] += 30
    found = {f.check: f for f in inspected(spoiled).findings}
    assert found["energy-outlier"].places == [found["energy-outlier"].places[0]]
    assert (
        found["energy-outlier"].places[0][1] == 11
        and "+4.968 eV/atom" in found["energy-outlier"].text
    )
    spoiled = changed(molecules, lambda k, a, v: None)
    spoiled[11].calc.results["forces"][2] += 50
    found = {f.check: f for f in inspected(spoiled).findings}
    for check in ("force-outlier", "net-force", "torque"):
        assert found[check].places[0][1] == 11, check


def test_isolated_atoms(inspected: Inspected, molecules: list[Atoms]) -> None:
    def atom(symbol: str, energy: float) -> Atoms:
        found = Atoms(symbol)
        found.calc = SinglePointCalculator(found, energy=energy, forces=np.zeros((1, 3)))
        return found

    said = only(inspected([*molecules, atom("Ni", 0.0)]))
    assert "isolated atoms of Ni, not of Cu" in said
    assert checks(inspected([*molecules, atom("Ni", 0.0), atom("Cu", 0.0)])) == []
    report = inspected(molecules)
    assert "(1 of 2 numbers)" in next(f.text for f in report.findings if f.check == "composition")
    said = only(inspected([*molecules, atom("Ni", -90.0), atom("Cu", -90.0)]))
    assert "another reference" in said and re.search(r"lie \d+\.?\d* or more above", said)
    said = only(inspected([*molecules, atom("Ni", 90.0), atom("Cu", 90.0)]))
    assert "another reference" in said and re.search(r"are bound by \d+\.?\d* or more", said)


def options(folder: Path, **more: object) -> Path:
    text = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": {"systems": str(folder / "a.xyz"), "targets": {"energy": {"unit": "eV"}}},
        **more,
    }
    (folder / "options.yaml").write_text(json.dumps(text))
    return folder / "options.yaml"


def test_leaks_between_the_sets_of_options(
    tmp_path: Path, molecules: list[Atoms], crystal: list[Atoms]
) -> None:
    ase.io.write(tmp_path / "a.xyz", molecules[:30])
    ase.io.write(tmp_path / "b.xyz", [*molecules[30:], molecules[3]])
    other = {"systems": str(tmp_path / "b.xyz"), "targets": {"energy": {"unit": "eV"}}}
    report = inspect_options(options(tmp_path, validation_set=other))
    assert "validation and training" in only(report) and "structure 10 of" in only(report)
    assert report.count("serious") == 1
    # a trajectory, split at random
    ase.io.write(tmp_path / "a.xyz", crystal[:MD])
    report = inspect_options(options(tmp_path, validation_set=0.2))
    said = next(f.text for f in report.findings if f.check == "trajectory-split")
    assert "of 6 validation and test structures" in said and "blocks" in said


def test_the_command(tmp_path: Path, crystal: list[Atoms]) -> None:
    path = str(tmp_path / "data.xyz")
    ase.io.write(path, changed(crystal[:MD], scaled("forces", -1)))
    run = CliRunner().invoke(app, [path, "--json", "--strict"])
    assert run.exit_code == 1
    found = json.loads(run.stdout)["findings"][0]
    assert (found["check"], found["severity"]) == ("forces-sign", "serious")
    run = CliRunner().invoke(app, [path])
    assert run.exit_code == 0 and "findings: 1 serious" in run.stdout
    run = CliRunner().invoke(app, [path, "--key", "forces"])
    assert "as in --key energy=REF_energy" in str(run.exception)
    run = CliRunner().invoke(app, ["options.yaml", "--unit", "eV"])
    assert isinstance(run.exception, AtomtrainError) and "give it alone" in str(run.exception)


def test_what_cannot_be_read(tmp_path: Path, molecules: list[Atoms]) -> None:
    with pytest.raises(AtomtrainError, match=r"inspect: the file 'none.xyz' does not exist"):
        inspect_files(["none.xyz"])
    ase.io.write(tmp_path / "a.xyz", molecules[:2])
    with pytest.raises(AtomtrainError, match=r"targets.energy.unit: .furlong. is not a unit"):
        inspect_files([str(tmp_path / "a.xyz")], unit="furlong")
    with pytest.raises(AtomtrainError, match=r"has no 'f'; the file has: energy, forces"):
        inspect_files([str(tmp_path / "a.xyz")], keys={"forces": "f"})


def test_samples_are_even_and_of_neighbours(tmp_path: Path, molecules: list[Atoms]) -> None:
    assert sample(10_000, 5.0) is None
    rows = sample(1_000_000, 5.0)
    assert rows is not None and len(rows) == 10_000
    assert rows[0] == 0 and rows[-1] == 999_999 and (np.diff(rows) == 1).mean() > 0.7
    rows = sample(10_000, 1e4)
    assert rows is not None and len(rows) == 500 and 500 % RUN == 0


def test_a_sample_of_a_data_set_on_disk(
    tmp_path: Path, crystal: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    ase.io.write(tmp_path / "a.xyz", changed(crystal[:MD], scaled("forces", -1)))
    convert([str(tmp_path / "a.xyz")], tmp_path / "store")
    monkeypatch.setattr("atomtrain_inspect.sets.MOST_STRUCTURES", 20)
    report = inspect_files([str(tmp_path / "store")])
    assert "20 of 30 structures of" in facts(report) and "in runs of 5" in facts(report)
    assert checks(report) == ["forces-sign"]


# -- functions of plain arrays ----------------------------------------------------------------------


def test_energies_of_all_electrons_tell_their_unit() -> None:
    assert np.allclose(all_electron(np.array([6, 8])), [-37.84, -75.06], rtol=0.02)
    elements, counts = np.array([1, 6, 8]), np.array([[4.0, 1, 0], [2, 0, 1], [4, 1, 1]])
    hartree = counts @ [-0.5, -37.8, -75.0] - 0.2
    for unit, factor in (("hartree", 1.0), ("eV", 27.2114), ("kcal/mol", 627.5)):
        assert unit_of_totals(factor * hartree, counts, elements) == unit
    assert unit_of_totals(counts.sum(1) * -5.0, counts, elements) == ""
    assert unit_of_totals(np.full(3, np.nan), counts, elements) == ""


def test_a_unit_is_told_by_several_compositions_alone(tmp_path: Path) -> None:
    water, methane = (
        Atoms(symbols, np.random.default_rng(0).normal(size=(len(symbols), 3)) * 3)
        for symbols in ("OHH", "CHHHH")
    )
    for frames, found in (([water, methane] * 6, ["energy-unit"]), ([water] * 12, [])):
        for k, atoms in enumerate(frames := [atoms.copy() for atoms in frames]):
            atoms.positions += 0.01 * k * np.eye(3)[[0, 1, 2, 0, 1][: len(atoms)]]
            energy = -76.4 if len(atoms) == 3 else -40.5
            atoms.calc = SinglePointCalculator(atoms, energy=energy + 1e-3 * k)
        ase.io.write(tmp_path / "a.xyz", frames)
        report = inspect_files([str(tmp_path / "a.xyz")], unit="eV")
        assert [f.check for f in report.findings if f.severity == "serious"] == found
        report = inspect_files([str(tmp_path / "a.xyz")], unit="hartree")
        assert "all electrons in hartree" in facts(report) and not report.count("serious")


def test_a_composition_passes_over_outliers() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (50, 2)).astype(float)
    energies = counts @ [-3.0, -7.0] + 0.01 * rng.normal(size=50)
    energies[7] += 500
    energies[9] = np.nan
    found = composition(energies, counts)
    assert found.rank == 2 and np.allclose(found.atoms, [-3, -7], atol=0.02)
    assert outliers(found.left).tolist() == [7]
    assert composition(energies, counts[:, :1].repeat(2, 1)).rank == 1
    assert np.allclose(bound(np.array([-10.0]), np.array([[2.0, 0]]), np.array([-3, np.nan])), -2)


def test_no_outliers_where_many_are_far() -> None:
    values = np.concatenate([np.zeros(80) + 1e-3 * np.arange(80), np.full(20, 50.0)])
    assert len(outliers(values)) == 0
