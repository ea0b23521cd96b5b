"""Dynamics as a figure of merit, on potentials whose dynamics are known."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from helpers.alloy import options, write_crystal
from helpers.installing import install
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelOutput
from typer.testing import CliRunner

from atomtrain import api
from atomtrain.cli.app import app as atomtrain_app
from atomtrain.errors import AtomtrainError, DataError, OptionsError
from atomtrain.model.export import load_model
from atomtrain_dynamics import command, structures
from atomtrain_dynamics.check import check, open_model, to_plain
from atomtrain_dynamics.command import app
from atomtrain_dynamics.engine import Model, freedom, model_of
from atomtrain_dynamics.evaluation import DynamicsEvaluation
from atomtrain_dynamics.result import Result
from atomtrain_dynamics.settings import Settings, usual_step
from atomtrain_dynamics.structures import Distribution, Seen, Structure, pairs_of
from atomtrain_dynamics.watch import Watch, bonds


def named(frames: Sequence[Atoms]) -> list[Structure]:
    return [Structure(one, f"structure {k} of 'a.xyz'", "a.xyz", k) for k, one in enumerate(frames)]


def springs(start: Atoms, strength: float = 20.0, twist: float = 0.0) -> Model:
    """Harmonic springs between all atoms; ``twist`` adds forces that belong to no energy."""
    rest = pairs_of(start)

    def one(atoms: Atoms) -> tuple[float, np.ndarray]:
        vectors = atoms.positions[rest.j] - atoms.positions[rest.i]
        lengths = np.linalg.norm(vectors, axis=1)
        pull = strength * (lengths - rest.d) / lengths
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, rest.i, pull[:, None] * vectors)
        np.add.at(forces, rest.j, -pull[:, None] * vectors)
        around = atoms.positions - atoms.positions.mean(0)
        forces += twist * np.cross([0.0, 0.0, 1.0], around)
        return float(0.5 * strength * np.sum((lengths - rest.d) ** 2)), forces

    def model(structures: Sequence[Atoms]) -> Any:
        return tuple(zip(*(one(atoms) for atoms in structures), strict=True))

    return model


@pytest.fixture(scope="module")
def methane() -> list[Structure]:
    frames = []
    for seed in range(8):
        atoms = molecule("CH4")
        atoms.rattle(0.04, seed=seed)
        frames.append(atoms)
    return named(frames)


@pytest.fixture(scope="module")
def copper() -> list[Structure]:
    frames = []
    for seed in range(6):
        atoms = bulk("Cu", "fcc", a=3.62, cubic=True).repeat((2, 1, 1))
        atoms.rattle(0.05, seed=seed)
        frames.append(atoms)
    return named(frames)


def run(model: Model, data: list[Structure], **settings: Any) -> Result:
    return check(model, Settings(**settings), data, data)


def test_a_conservative_model_holds_and_its_energy_stays(methane: list[Structure]) -> None:
    result = run(springs(molecule("CH4")), methane, time=0.2, settle=0.05, starts=2)
    values = result.values()
    assert values["runs_that_held"] == 2 and "all held" in result.lines()[0]
    assert values["timestep_fs"] == 0.5
    assert abs(values["drift_meV_per_atom_per_ps"]) < 5 * values["drift_error_meV_per_atom_per_ps"]
    assert abs(values["drift_meV_per_atom_per_ps"]) < 1
    assert 0 < values["fluctuation_meV_per_atom"] < 5
    assert abs(values["temperature_K"] - 300) < 4 * values["temperature_error_K"]
    assert set(values["temperature_of_elements_K"]) == {"H", "C"}
    assert [run["frame"] for run in values["runs"]] == [0, 7]
    assert 0 < values["distances"]["CH4"]["difference"] < 1


def test_forces_of_no_energy_make_it_drift(methane: list[Structure]) -> None:
    result = run(springs(molecule("CH4"), twist=0.05), methane, time=0.15, settle=0.02, starts=2)
    values = result.values()
    assert values["drift_meV_per_atom_per_ps"] > 1 and "energy drifts by +" in str(result.lines())
    assert values["drift_meV_per_atom_per_ps"] > 3 * values["drift_error_meV_per_atom_per_ps"]


def test_the_same_seed_gives_the_same(methane: list[Structure]) -> None:
    model = springs(molecule("CH4"))

    def made(seed: int, starts: int = 2) -> Any:
        return run(model, methane, time=0.03, settle=0.02, starts=starts, seed=seed).values()

    assert made(3) == made(3) and made(3) != made(4)


def test_crystals(copper: list[Structure], tmp_path: Path) -> None:
    result = run(model_of(EMT()), copper, time="100 fs", settle=0.05, starts=2, temperature=200)
    values = result.values()
    assert values["runs_that_held"] == 2 and values["timestep_fs"] == 2.0
    assert abs(values["drift_meV_per_atom_per_ps"]) < 5
    assert values["closest"]["Cu-Cu"]["data_A"] == pytest.approx(2.4, abs=0.2)
    assert values["distances"]["Cu8"]["between_halves_of_the_data"] > 0
    assert json.loads(json.dumps(to_plain(values)))["time_ps"] == pytest.approx(0.1)
    assert result.picture(tmp_path / "a.png").stat().st_size > 10_000


def test_a_model_that_explodes_is_found_out(methane: list[Structure], tmp_path: Path) -> None:
    result = run(springs(molecule("CH4"), -40.0), methane, time=0.2, settle=0, starts=3)
    values = result.values()
    assert values["runs_that_held"] == 0 and "3 of 3 did not hold" in result.lines()[0]
    for one in values["runs"]:
        assert 0 < one["lasted_ps"] < 0.1 and one["file"] == "a.xyz"
    said = "\n".join(result.lines())
    assert "structure 0 of 'a.xyz': after 0." in said
    assert "the bond C0-H" in said
    assert "drift_meV_per_atom_per_ps" not in values
    result.picture(tmp_path / "nothing.png")


def test_one_that_breaks_does_not_disturb_the_others(methane: list[Structure]) -> None:
    sound = springs(molecule("CH4"))
    calls = [0]

    def model(structures: Sequence[Atoms]) -> Any:
        calls[0] += 1
        energies, forces = sound(structures)
        if len(structures) == 3 and calls[0] > 30:
            energies = (energies[0], float("nan"), energies[2])
        if len(structures) == 2 and calls[0] > 90:
            raise RuntimeError("no memory\nfor more than one")
        return energies, forces

    result = run(model, methane, time=0.1, settle=0, starts=3)
    first, second, third = result.values()["runs"]
    assert second["ended"].startswith("the energy is nan eV") and second["lasted_ps"] < 0.025
    assert not first["ended"] and not third["ended"]


def test_a_model_that_stops(methane: list[Structure]) -> None:
    def model(structures: Sequence[Atoms]) -> Any:
        raise RuntimeError("Traceback\nValueError: too far")

    result = run(model, methane, time=0.01, settle=0, starts=2)
    assert result.values()["runs"][0]["ended"].startswith(
        "the model stopped with RuntimeError: Val"
    )


def test_small_molecules_survive_the_thermostat(methane: list[Structure]) -> None:
    """Langevin dynamics with a fixed centre of mass heat small molecules until they break."""
    result = run(
        springs(molecule("CH4")), methane, time=0.2, settle=0, starts=2, ensemble="langevin",
        temperature=400,
    )  # fmt: skip
    values = result.values()
    assert values["runs_that_held"] == 2 and "drift_meV_per_atom_per_ps" not in values
    assert abs(values["temperature_K"] - 400) < 200


def test_what_ends_a_run(methane: list[Structure], copper: list[Structure]) -> None:
    seen = Seen.of([*methane, *copper])
    watch = Watch(molecule("CH4"), seen)
    near = molecule("CH4")
    near.positions[2] = near.positions[1] + [0.4, -0.4, -0.4]
    assert watch.problem(molecule("CH4")) == ""
    assert "H1-H2 are 0.69 A apart, the data's shortest is 1." in watch.problem(near)
    crystal = copper[0].atoms.copy()
    watch = Watch(crystal, seen)
    crystal.positions[3] = crystal.positions[2] + [0.5, 0, 0]
    assert "Cu2-Cu3 are 0.50 A apart" in watch.problem(crystal)
    wide = copper[0].atoms.copy()
    wide.set_cell(1.9 * wide.cell.array, scale_atoms=True)
    assert "the nearest neighbour of Cu0 is 4." in watch.problem(wide)
    gone = copper[0].atoms.copy()
    gone.positions[0] = np.nan
    assert watch.problem(gone) == "positions are not finite"


def test_a_proton_that_is_handed_over_has_not_left() -> None:
    atoms = Atoms("OHO", [(0, 0, 0), (1, 0, 0), (2.5, 0, 0)])
    watch = Watch(atoms, Seen.of(named([atoms])))
    atoms.positions[1] = (1.6, 0, 0)
    assert watch.problem(atoms) == ""
    atoms.positions[1] = (1.2, 2.2, 0)
    assert "H1 is 2.5" in watch.problem(atoms)


@pytest.mark.parametrize(
    ("atoms", "number"),
    [
        (molecule("C2H6"), 7),
        (bulk("C", "diamond", cubic=True), 0),  # a network
        (molecule("CH4", cell=[4, 4, 4], pbc=True), 4),
        (Atoms("C2H4", [(0, 0.4, 0), (1.27, -0.4, 0), (0, 1, 0.9), (0, 1, -0.9),
                        (1.27, -1, 0.9), (1.27, -1, -0.9)], cell=[2.54, 9, 9], pbc=True), 0),
        (Atoms("Au2", [(0, 0, 0), (2.5, 0, 0)]), 0),
    ],
)  # fmt: skip
def test_bonds_are_those_of_molecules(atoms: Atoms, number: int) -> None:
    assert len(bonds(atoms).d) == number


def test_molecules_across_the_boundary_are_whole() -> None:
    water = molecule("H2O", cell=[5, 5, 5], pbc=True)
    water.positions += [0, 0, 4.9]
    water.wrap()
    found = bonds(water)
    assert len(found.d) == 2 and found.d.max() < 1.0


def test_large_molecules_are_looked_at_nearby(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = bulk("C", "diamond", cubic=True).repeat(2)
    atoms.pbc = False
    all_of_them = pairs_of(atoms)
    monkeypatch.setattr("atomtrain_dynamics.structures.ALL_PAIRS", 10)
    near = pairs_of(atoms)
    assert len(near.d) == np.sum(all_of_them.d <= 6.0) < len(all_of_them.d)


def test_degrees_of_freedom(copper: list[Structure]) -> None:
    assert freedom(molecule("CH4")).sum() == pytest.approx(9)
    assert freedom(molecule("CO2")).sum() == pytest.approx(4)
    assert freedom(copper[0].atoms).sum() == pytest.approx(21)


def test_distributions() -> None:
    rng = np.random.default_rng(0)

    def gas(n: int) -> Distribution:
        found = Distribution()
        for _ in range(n):
            atoms = Atoms("ArNe3" * 20, rng.uniform(0, 12, (80, 3)), cell=[12, 12, 12], pbc=True)
            found.add(atoms, pairs_of(atoms))
        return found

    many = gas(20)
    assert many.of((10, 18))[60:].mean() == pytest.approx(1, abs=0.03)
    assert many.of((18, 18))[60:].mean() == pytest.approx(1, abs=0.05)
    assert many.distance(many) == 0
    short, long = Distribution(), Distribution()
    for found, length in ((short, 1.0), (long, 1.5)):
        dimer = Atoms("CO", [(0, 0, 0), (length, 0, 0)])
        found.add(dimer, pairs_of(dimer))
    assert short.distance(long) == 1


def test_a_long_step_is_named(methane: list[Structure]) -> None:
    result = run(springs(molecule("CH4")), methane, time=0.1, settle=0, starts=1, timestep=2.0)
    assert "2 fs are long for the lightest atoms here: 0.5 fs are usual" in str(result.lines())
    assert (usual_step(2.014), usual_step(12.0), usual_step(26.98)) == (0.5, 1.0, 2.0)


def test_one_atom_goes_nowhere() -> None:
    cells = named([bulk("Cu")])
    with pytest.raises(DataError, match="for cells of one atom ask to repeat them"):
        run(model_of(EMT()), cells, time=0.01)
    found = run(model_of(EMT()), cells, time=0.01, settle=0.0, starts=1, repeat=2)
    assert len(found.ran.runs[0].atoms) == 8
    said = str(found.lines())
    assert "1 run of 0.01 ps" in said and "too few for a drift" in said and "have but one" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1}, "temperature: .*greater than 0"),
        ({"time": "5 parsec"}, "time: '5 parsec' is no time; write a number of ps"),
        ({"temprature": 300}, "temprature: .*did you mean 'temperature'"),
        ({"ensemble": "npt"}, "ensemble: expected nve or langevin"),
        ({"starts": 0}, "starts: "),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        DynamicsEvaluation(**arguments)
    assert DynamicsEvaluation(time="2000 fs", timestep="0.001 ps").settings.time == 2.0


# -- a training with it --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.TrainingResult]:
    """A training of two epochs with a look at its dynamics."""
    folder = tmp_path_factory.mktemp("trained")
    install(folder, "rings", target="rings_plugin")
    install(folder, "atomtrain-dynamics", group="atomtrain.components", entry="dynamics",
            target="atomtrain_dynamics.plugin")  # fmt: skip
    write_crystal(folder / "crystal.xyz", 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        asked = {"dynamics": {"time": "20 fs", "settle": "10 fs", "starts": 2}}
        yield api.train(rings(final_eval=asked))


def rings(**changes: Any) -> dict[str, Any]:
    training = {"num_epochs": 2, "batch_size": 4}
    return options(architecture={"name": "rings", "training": training}, **changes)


def test_final_eval(trained: api.TrainingResult) -> None:
    told = json.loads((trained.directory / "evaluation.json").read_text())["dynamics"]
    assert told["set"] == "test" and len(told["runs"]) == 2 and told["seed"] == 1
    assert told["runs"][0]["file"] == "crystal.xyz"
    assert (trained.directory / "dynamics.png").is_file()
    log = (trained.directory / "train.log").read_text()
    assert "dynamics: 2 runs of 0.02 ps, constant energy, 300 K, 2 fs a step" in log
    assert f"to look at  {trained.directory / 'dynamics.png'}" in log


def test_a_run_is_shown(trained: api.TrainingResult) -> None:
    described = api.show(trained.directory)
    assert described["what"] == "run" and described["errors"] == trained.errors
    assert described["findings"]["dynamics"]["timestep_fs"] == 2.0
    shown = CliRunner().invoke(atomtrain_app, ["show", str(trained.directory)]).output
    text = " ".join(shown.split())
    assert "final test energy RMSE" in text and "epochs 2, best" in text
    assert "runs: 2 in evaluation.json" in text and "timestep_fs: 2.0" in text
    damaged = trained.directory / "evaluation.json"
    kept = damaged.read_text()
    damaged.write_text(kept[:50])
    with pytest.raises(AtomtrainError, match=r"'.*evaluation\.json' cannot be read: "):
        api.show(trained.directory)
    damaged.write_text(kept)
    with pytest.raises(AtomtrainError, match="is not the folder of a run: there is no checkpoint"):
        api.show(trained.directory.parent)


def test_the_command(trained: api.TrainingResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.checkpoint.resolve().parent)
    quick = ["--time", "20fs", "--settle", "0", "--starts", "2", "--json", "-o", "b.png"]
    done = CliRunner().invoke(app, ["model.pt", "crystal.xyz", *quick], catch_exceptions=False)
    values = json.loads(done.stdout)
    assert values["runs"][1]["frame"] == 11 and values["seed"] == 0 and Path("b.png").is_file()
    Path("o.yaml").write_text(yaml.safe_dump(rings()))
    done = CliRunner().invoke(app, ["model.pt", "o.yaml", *quick], catch_exceptions=False)
    assert json.loads(done.stdout)["runs"][0]["file"] == "crystal.xyz"
    ase.io.write("ni.xyz", bulk("Ni", cubic=True))
    for arguments, message in (
        (["model.ckpt", "crystal.xyz"], "is a checkpoint, not an exported model"),
        (["model.pt", "crystal.xyz", "--variant", "pbe"], "'model.pt' has no 'energy/pbe'"),
        (["model.pt", "crystal.xyz", "o.yaml"], "is an options file, which names its data"),
        (
            ["model.pt", "ni.xyz"],
            "the model does not know Ni, which are in structure 0 of 'ni.xyz'",
        ),
        (["model.pt", "crystal.xyz", "-o", "no/a.png"], "the directory 'no' does not exist"),
        (["model.pt", "crystal.xyz", "-o", "crystal.xyz"], "'crystal.xyz' is no name of a picture"),
        (["model.pt", "crystal.xyz", "--length-unit", "eV"], "'eV' is not a unit of length"),
    ):
        with pytest.raises(AtomtrainError, match=message):
            CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_positions_in_another_unit(
    trained: api.TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.checkpoint.resolve().parent)
    crystal = ase.io.read("crystal.xyz", ":2")
    for atoms in crystal:
        atoms.set_cell(atoms.cell / 10, scale_atoms=True)
    ase.io.write("nm.xyz", crystal)
    (in_nm, _), (angstrom, _) = (
        command._structures(["nm.xyz"], "nm"),
        command._structures(["crystal.xyz"], "angstrom"),
    )
    for k in range(2):
        np.testing.assert_allclose(in_nm[k].atoms.positions, angstrom[k].atoms.positions, atol=1e-6)


def test_units_that_a_model_does_not_tell(
    trained: api.TrainingResult, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(trained.checkpoint.resolve().parent)
    open_model(Path("model.pt"), None)
    assert not caplog.messages
    opened = load_model(Path("model.pt"))
    silent = opened.capabilities()
    outputs = {"energy": ModelOutput(unit="", sample_kind="system")}
    silent = ModelCapabilities(
        outputs,
        silent.atomic_types,
        silent.interaction_range,
        "",
        silent.supported_devices,
        silent.dtype,
    )
    with pytest.warns(UserWarning, match="No length unit"):
        AtomisticModel(opened.module, opened.metadata(), silent).save("silent.pt")
    open_model(Path("silent.pt"), None)
    assert [message.partition("its unit ")[2].partition(";")[0] for message in caplog.messages] == [
        "of 'energy', which is taken as eV",
        "of length, which is taken as angstrom",
    ]


def test_a_part_of_the_data_is_said(
    trained: api.TrainingResult, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(trained.checkpoint.resolve().parent)
    monkeypatch.setattr(structures, "MOST_STRUCTURES", 5)
    found, _ = command._structures(["crystal.xyz"], "angstrom")
    assert [one.frame for one in found] == [0, 2, 5, 8, 11]
    assert "5 of 12 structures are looked at" in caplog.text


def test_a_training_without_an_energy_hears_of_it_first(
    trained: api.TrainingResult, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atomtrain")
    monkeypatch.chdir(trained.checkpoint.resolve().parent)
    asked = rings(final_eval={"dynamics": {}})
    asked["training_set"]["targets"] = {"mtt::e": {"key": "energy"}}
    with pytest.raises(
        OptionsError, match=r"final_eval\.dynamics: dynamics need a target 'energy'"
    ):
        api.train(asked)
