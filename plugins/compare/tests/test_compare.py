"""``atomtrain compare``: two real trainings on a few crystals; all else with commands that only look like trainings."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from helpers.alloy import options, write_crystal, write_options
from typer.testing import CliRunner

from atomtrain.api import train as ordinary
from atomtrain.contract import environments
from atomtrain.contract.environments import OtherEnvironment
from atomtrain.data import Label, StructureStore
from atomtrain.errors import AtomtrainError, OptionsError, OutputError
from atomtrain.evaluation import Evaluation
from atomtrain.runs import plan
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain_compare import Comparison, Result, compare, measures, running, table
from atomtrain_compare.budget import Budget, fitting, timed
from atomtrain_compare.command import app
from atomtrain_compare.picture import costs, learning
from atomtrain_compare.split import draw
from atomtrain_compare.variants import variants_of

N, FEW = 20, 32
LINEAR = "architecture.name=linear architecture.model.num_pairs=4 architecture.model.num_products=4"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with crystals and options of a training of a second."""
    folder = tmp_path_factory.mktemp("data")
    write_crystal(folder / "crystal.xyz", N)
    write_options(folder / "options.yaml")
    return folder


@pytest.fixture
def there(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the working directory."""
    monkeypatch.chdir(data)
    return data


@pytest.fixture(scope="module")
def done(data: Path) -> Iterator[Comparison]:
    """The comparison of a network and a linear potential, trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(data)
        patch.setattr(measures, "SECONDS", 0.1)
        patch.setattr(measures, "ATOMS", FEW)
        yield compare(["options.yaml"], ["", LINEAR], epochs=2, output="done")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have a text of Python run instead of trainings."""

    def install(text: str) -> None:
        path = tmp_path / "instead.py"
        path.write_text(text)
        monkeypatch.setattr(running, "COMMAND", (sys.executable, str(path)))
        monkeypatch.setattr(running, "LOOK", 0.02)

    return install


# -- real trainings --------------------------------------------------------------------------------


def test_all_is_known_of_each_run(done: Comparison, data: Path) -> None:
    network, linear = done.results
    assert not done.failed and not done.interrupted
    assert [r.variant for r in done.results] == ["soap-bpnn", "linear, num_pairs=4, num_products=4"]
    assert (network.epochs, linear.epochs) == (2, None)
    for result in done.results:
        assert {"energy RMSE [meV/atom]", "forces MAE [meV/A]"} < set(result.errors)
        assert all(np.isfinite(value) for value in result.errors.values())
        assert result.training_seconds and result.step_us and result.parameters
        assert result.model_mb and result.peak_mb and result.peak_mb > 100
        assert FEW <= result.step_atoms < 2 * FEW
        assert (data / result.folder / "model.pt").is_file()
    assert done.quantities[:2] == ["energy RMSE [meV/atom]", "forces RMSE [meV/A]"]


def test_every_run_has_the_same_structures(done: Comparison, data: Path) -> None:
    for name in ("train", "validation", "test"):
        shared = (data / "done" / "indices" / f"{name}_0.txt").read_text()
        for result in done.results:
            (own,) = (data / result.folder).glob(f"outputs/*/*/indices/{name}_0.txt")
            assert own.read_text() == shared


def test_a_run_is_the_training_of_its_options(done: Comparison, there: Path) -> None:
    trained = ordinary("options.yaml", overrides=["architecture.training.num_epochs=2"])
    (own,) = (there / done.results[0].folder).glob("outputs/*/*/train.csv")
    rows = []
    for path in (own, trained.directory / "train.csv"):
        with open(path, newline="") as file:
            rows.append([{**row, "seconds": 0, "time": 0} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    assert done.results[0].errors["forces RMSE [meV/A]"] == pytest.approx(
        1e3 * trained.errors["test"]["energy:forces"]["rmse"], rel=1e-4
    )


def test_a_step_is_the_same_without_ase(
    done: Comparison, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = draw(plan("options.yaml"))
    path = Path(done.results[0].folder) / "model.pt"
    first, by_ase = measures.step_of(path, split.example, "energy", split.info)
    monkeypatch.setitem(sys.modules, "metatomic_ase", None)
    second, by = measures.step_of(path, split.example, "energy", split.info)
    assert (by_ase, by) == ("ASE", "metatomic")
    positions = split.example.positions + 0.05
    np.testing.assert_allclose(first(positions), second(positions), atol=1e-4)


def test_results_are_written(done: Comparison, data: Path) -> None:
    folder = data / "done"
    found = json.loads((folder / "comparison.json").read_text())
    assert [run["variant"] for run in found["runs"]] == list(found["comparison"]["variants"])
    assert found["comparison"]["structures"] == {"training": 12, "validation": 4, "test": 4}
    assert (folder / "comparison.png").stat().st_size > 10_000
    assert not (folder / "learning.png").exists()
    text = (folder / "comparison.md").read_text()
    assert "forces RMSE, meV/Å" in text and "without architecture.model" in text


def test_what_is_done_is_not_repeated_and_what_fails_is_a_line(
    done: Comparison, there: Path, script: Any
) -> None:
    script("print('error: it is too dark'); raise SystemExit(1)")
    more = "architecture.training.learning_rate=0.5"
    (there / "done" / "comparison.json").unlink()
    ended = CliRunner().invoke(
        app, ["options.yaml", "--with", more, "--with", "", "--with", LINEAR, "--epochs", "2", "-o", "done"]
    )  # fmt: skip
    assert ended.exit_code == 1, ended.output
    assert "2 done before, 1 left" in ended.output
    assert "soap-bpnn, learning_rate=0.5: it is too dark" in ended.output
    found = json.loads((there / "done" / "comparison.json").read_text())
    assert [run["error"] for run in found["runs"]] == ["it is too dark", "", ""]
    assert found["runs"][1]["errors"] == done.results[0].errors
    assert "it is too dark |" in (there / "done" / "comparison.md").read_text()


def test_a_folder_of_something_else_is_refused(done: Comparison, there: Path) -> None:
    with pytest.raises(OutputError, match=r"'done/runs/soap-bpnn/12/seed1' has a run of other opt"):
        compare(["options.yaml"], epochs=3, output="done")
    with pytest.raises(OutputError, match="another budget"):
        compare(["options.yaml"], minutes=1, output="done")
    with pytest.raises(OutputError, match="on other data or another split"):
        compare(["options.yaml"], ["validation_set=0.3"], epochs=2, output="done")
    (there / "mine").mkdir()
    (there / "mine" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="'mine' is there, and no comparison"):
        compare(["options.yaml"], epochs=2, output="mine")


# -- what is compared ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["architecture.name=soup-bpnn"], "--with 'architecture.name=soup-bpnn': .*'soap-bpnn'"),
        (["", "architecture.model.soap.max_angula=2"], "max_angula"),
        (["", "training_set.targets.energy.forces=false"],
         "training_set.0.targets.energy.forces is .* in 'soap-bpnn' and false in 'soap-bpnn, forces=false'"),
        (["", "test_set=0.1"], "test_set.0 is 0.2 .* and 0.1"),
        (["", "seed=4"], "seed is 1 .* and 4 .*--seeds"),
        (["", "seed=1"], "'options.yaml' and 'options.yaml seed=1' are the same"),
        (["architecture.training.finetune.read_from=none.ckpt"], "none.ckpt"),
        (["device='cpu"], "No closing quotation"),
    ],
)  # fmt: skip
def test_variants_that_cannot_be_compared(there: Path, changes: list[str], message: str) -> None:
    with pytest.raises(AtomtrainError, match=message):
        compare(["options.yaml"], changes, epochs=1, output="never")
    assert not Path("never").exists()


def test_a_variant_of_another_environment(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole comparison goes there, so that what it needs is said to be needed there."""

    def elsewhere(name: str) -> None:
        raise OtherEnvironment(Path(sys.prefix), f"architecture '{name}'")

    monkeypatch.setattr(environments, "look_for", elsewhere)
    with pytest.raises(OtherEnvironment, match=r"--with 'architecture.name=far': .*'far'") as met:
        compare(["options.yaml"], ["", "architecture.name=far"])
    assert met.value.environment == Path(sys.prefix)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 1, "minutes": 1.0}, "two budgets"),
        ({"epochs": 0}, "at least one"),
        ({"minutes": 0.0}, "more than 0"),
        ({"seeds": 0}, "at least once"),
        ({"structures": [13]}, "has 12 structures"),
        ({"structures": [0]}, "from 1 to 12"),
    ],
)
def test_budgets_that_cannot_be(there: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        compare(["options.yaml"], output="never", **arguments)
    assert not Path("never").exists()


def test_sizes_that_are_no_numbers() -> None:
    ended = CliRunner().invoke(app, ["options.yaml", "--structures", "10,some"])
    assert isinstance(ended.exception, OptionsError)
    assert "'some' is no number of structures" in str(ended.exception)


def test_another_architecture_takes_what_every_training_has(there: Path) -> None:
    (variant,) = variants_of(["options.yaml"], [LINEAR])
    said = options()["architecture"]["training"]
    assert variant.plan.hypers.batch_size == said["batch_size"]
    assert variant.left_out == ("architecture.model", "architecture.training.num_epochs")
    assert not variant.has_epochs
    (same,) = variants_of(["options.yaml"], ["architecture.name=soap_bpnn"])
    assert (
        not same.left_out
        and same.plan.completed["architecture"]["model"]["soap"]["max_radial"] == 3
    )


def test_names_say_what_differs(there: Path) -> None:
    write_options(there / "other.yaml", device="cpu")
    names = [v.name for v in variants_of(["options.yaml", "other.yaml"], ["", LINEAR])]
    assert names == [
        "options",
        "options, linear, num_pairs=4, num_products=4",
        "other",
        "other, linear, num_pairs=4, num_products=4",
    ]


# -- the split -------------------------------------------------------------------------------------


def sectioned(**changes: Any) -> dict[str, Any]:
    """Options with two sections of one file."""
    made = options(**changes)
    section = made["training_set"]
    first, second = ({**section, "indices": list(part)} for part in (range(15), range(15, N)))
    return {**made, "training_set": [first, second]}


def test_subsets_are_nested_and_of_all_sections(there: Path) -> None:
    split = draw(plan(sectioned()))
    split.add_subsets([2, 4, 8, split.training])
    sets = [{(k, f) for k, part in enumerate(p) for f in part} for p in split.subsets.values()]
    assert [len(one) for one in sets] == [2, 4, 8]
    assert sets[0] < sets[1] < sets[2]
    assert all(frames for part in split.subsets.values() for frames in part)
    assert [len(part) for part in split.subsets[8]] == [6, 2]
    with pytest.raises(OptionsError, match=r"from 2 \(one of each training section\) to 12"):
        split.add_subsets([1])


def test_options_of_a_run_read_the_same_from_its_folder(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = sectioned()
    base["architecture"]["training"]["atomic_baseline"] = "of/other.ckpt"
    planned = plan(base)
    split = draw(planned)
    split.add_subsets([5])
    split.write(Path("split"))
    run = Path("split/runs/a/5/seed3")
    run.mkdir(parents=True)
    made = split.options(planned, Path("split"), run, size=5, seed=3, epochs=9)
    baseline = made["architecture"]["training"]["atomic_baseline"]
    assert baseline == "../../../../../of/other.ckpt"
    smaller = yaml.safe_load(yaml.safe_dump(made))
    monkeypatch.chdir(run)
    again = draw(plan(smaller))
    assert again.frames["validation"] == split.frames["validation"]
    assert again.frames["train"] == split.subsets[5]
    assert {n: again.fingerprints[n] for n in ("validation", "test")} == {
        n: split.fingerprints[n] for n in ("validation", "test")
    }
    assert again.completed["architecture"]["training"]["num_epochs"] == 9


def test_without_a_test_set_errors_are_on_the_validation_set(there: Path) -> None:
    some = draw(plan(options(test_set=[])))
    assert some.judged_on == "validation"
    (section,) = some.judged_sections(Path("x"))
    assert section["indices"] == "x/indices/validation_0.txt"
    own = options(test_set=options()["training_set"])
    assert draw(plan(own)).judged_sections(Path("x"))[0]["indices"] is None
    with pytest.raises(OptionsError, match="neither a test set nor a validation set"):
        draw(plan(options(test_set=[], validation_set=0)))


# -- running ---------------------------------------------------------------------------------------

EPOCHS = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
folder = pathlib.Path("outputs/2026-01-01/00-00-00")
folder.mkdir(parents=True)
with open(folder / "train.csv", "w") as file:
    file.write("epoch,seconds,time\\n")
    for k in range(500):
        file.write(f"{k},{2.0 if k == 0 else 0.5},1\\n")
        file.flush()
        time.sleep(0.03)
"""


def test_an_epoch_is_timed_and_the_training_ended(tmp_path: Path, script: Any) -> None:
    script(EPOCHS)
    ended, seconds = timed(tmp_path / "t", 30.0, lambda folder, epochs: f"{folder}: {epochs}")
    assert not ended.error and not (tmp_path / "t").exists()
    assert seconds[:3] == [2.0, 0.5, 0.5] and 7 <= len(seconds) < 60
    assert fitting(seconds, 30.0) == 57
    assert [fitting([9.0], budget) for budget in (1.0, 30.0)] == [1, 3]


def test_what_cannot_be_timed_fails_once(there: Path, script: Any) -> None:
    script("open('../../tried', 'a').write('once'); print('error: no'); raise SystemExit(1)")
    found = compare(["options.yaml"], minutes=1, seeds=2, structures=["all"], output="untimed")
    assert [result.error for result in found.results] == ["no", "no"]
    assert (there / "untimed/runs/soap-bpnn/tried").read_text() == "once"


def test_stages_that_were_repeated_count_once(tmp_path: Path) -> None:
    for name, rows in (("a", "0,,1,5\n1,,2,5\n"), ("b", ",rows,0.5,5\n1,,3,5\n2,,3")):
        folder = tmp_path / "outputs" / "d" / name
        folder.mkdir(parents=True)
        (folder / "train.csv").write_text(f"epoch,stage,seconds,time\n{rows}")
    found = running.logged(tmp_path)
    assert (sum(found.seconds), found.epochs) == (4.5, 2)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("print('error: first\\nerror: last'); raise SystemExit(1)", "last"),
        ("raise ValueError('odd')", "ValueError: odd"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL, perhaps because memory ran out"),
    ],
)
def test_why_a_command_failed(tmp_path: Path, script: Any, text: str, error: str) -> None:
    script(text)
    assert running.train(tmp_path).error == error


def test_memory_is_that_of_the_command(tmp_path: Path, script: Any) -> None:
    # less than this process has, which the system's count of a child's begins with
    script("import time; x = bytearray(60_000_000); time.sleep(0.3)")
    ended = running.train(tmp_path)
    assert ended.peak_mb is not None
    assert 57 < ended.peak_mb < (150 if sys.platform == "linux" else 1e6)


def test_ctrl_c_stops_the_run_and_shows_what_is_known(
    done: Comparison, there: Path, script: Any
) -> None:
    script(EPOCHS)
    first = there / "done/runs/soap-bpnn-accumulate=2/12/seed1"

    def interrupt() -> None:
        while not list(first.glob("outputs/*/*/train.csv")):
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    change = "architecture.training.accumulate=2"
    ended = CliRunner().invoke(
        app, ["options.yaml", "--with", change, "--with", "", "--epochs", "2", "-o", "done"]
    )
    thread.join()
    assert ended.exit_code == 130, ended.output
    assert "the same command goes on from here" in ended.output
    assert re.search(r"^ soap-bpnn +\d", ended.output, re.MULTILINE)


# -- what is shown ---------------------------------------------------------------------------------


def made_up(seeds: int = 2, sizes: tuple[int, ...] = (50, 100)) -> Comparison:
    about = {
        "variants": {"ace": {}, "linear, a=1": {}, "worse": {}},
        "budget": str(Budget(minutes=3)),
        "seeds": list(range(seeds)),
        "structures": {"training": 100, "test": 10},
        "judged_on": "test",
    }
    results = [
        Result(
            name, seed, size, "x", epochs=7, training_seconds=10.0 * (k + 1), peak_mb=300.0,
            errors={"energy RMSE [meV/atom]": 1.0 + seed + k, "energy MAE [meV/atom]": 0.5,
                    "phase accuracy": 0.9, "phase cross entropy": 0.1},
            shown=["energy RMSE [meV/atom]", "phase accuracy"],
            step_us=5.0, step_atoms=9, step_by="ASE", model_mb=1.0, parameters=1234,
        )
        if name != "worse"
        else Result(name, seed, size, "x", error="[red]no[/red] | luck")
        for seed in range(seeds) for size in sizes for k, name in enumerate(about["variants"])
    ]  # fmt: skip
    return Comparison(about, {}, results)


def test_the_table() -> None:
    text = table.in_markdown(made_up(sizes=(100,)))
    assert "| energy RMSE, meV/atom |" in text and "MAE" not in text and "entropy" not in text
    assert "| ace | 7 | 10.0 | 1.50 (1.00 to 2.00) | 0.900 |" in text
    assert (
        "| worse | - | failed | - | - | - | - | - | - | seeds 0, 1: [red]no[/red] \\| luck |"
        in text
    )
    assert table.errors(made_up(seeds=1)) == [
        f"worse, {size} structures: [red]no[/red] | luck" for size in (50, 100)
    ]


def test_a_part_of_the_training_set_is_said() -> None:
    part = made_up(sizes=(50,))
    assert "| ace | 50 | 7 | 10.0 |" in table.in_markdown(part)
    assert "trained on as many of these as the table says" in table.notes(part)[0]
    assert "as many" not in table.notes(made_up(sizes=(100,)))[0]


def test_errors_of_several_sections_are_those_of_all_their_structures() -> None:
    info = TargetInfo("mtt::b", kind="binary", classes=("0", "1"))
    labels = torch.tensor([1.0, 0, 0, 0, 0, 1, 1, 1])[:, None].double()
    guessed = torch.tensor([0.9, 0.8, 0.1, 0.1, 0.1, 0.2, 0.7, 0.6])[:, None].double()

    def evaluated(rows: slice) -> Evaluation:
        n = len(labels[rows])
        store = StructureStore(
            torch.zeros(n, 3, dtype=torch.float64), torch.ones(n, dtype=torch.int64), torch.zeros(n, 3, 3).double(),
            torch.zeros(n, 3, dtype=torch.bool), torch.arange(n + 1), {"mtt::b": Label(labels[rows], False)},
        )  # fmt: skip
        targets = DatasetInfo("angstrom", (1,), {"mtt::b": info})
        predictions = {"mtt::b": guessed[rows]}
        return Evaluation(targets, {}, predictions, 0.0, None, store, [])

    parts = measures.errors_of([evaluated(slice(0, 5)), evaluated(slice(5, 8))], [])
    (found,) = parts
    assert parts == measures.errors_of([evaluated(slice(0, 8))], [])
    # three of four are found, and one is called so that is none
    assert found["b accuracy"] == 0.75 and found["b F1"] == pytest.approx(0.75)


def test_pictures_have_labels_with_units() -> None:
    figure = costs(made_up())
    assert figure is not None
    labels = {axes.get_xlabel() for axes in figure.axes} | {a.get_ylabel() for a in figure.axes}
    assert labels >= {
        "training, s",
        "step of dynamics, µs/atom",
        "energy RMSE, meV/atom",
        "phase accuracy",
    }
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ace", "linear, a=1"]
    curves = learning(made_up())
    assert curves is not None and len(curves.axes) == 2
    assert curves.axes[0].get_xscale() == curves.axes[0].get_yscale() == "log"
    assert learning(made_up(sizes=(100,))) is None


def test_periodic_structures_are_repeated() -> None:
    slab = Atoms("CH", np.zeros((2, 3)), cell=[4.0, 8.0, 0.0], pbc=[True, True, False])
    found = measures.repeated(slab)
    assert len(found) >= measures.ATOMS
    assert found.cell[2, 2] == 0 and found.cell[0, 0] == pytest.approx(found.cell[1, 1], rel=0.2)
    molecule = Atoms("CH", np.zeros((2, 3)))
    assert measures.repeated(molecule) == molecule
