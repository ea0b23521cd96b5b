"""Tasks from the options file to the exported model, several at once, on SOAP-BPNN."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.alloy import crystal
from helpers.installing import install

from atomtrain import api
from atomtrain.errors import DataError, OptionsError, TargetError
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain_soap_bpnn.model import SoapBpnn

pytestmark = pytest.mark.filterwarnings("ignore")

N = 48


def labelled(seed: int) -> Atoms:
    """A strained cell of Cu, one atom of which is Au in half of them."""
    atoms = crystal(seed)
    if seed % 2:
        atoms.numbers[:] = 29
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    gold = bool((atoms.numbers == 79).any())
    atoms.info["metal"] = "alloy" if gold else "copper"
    atoms.info["gold"] = int(gold)
    atoms.info["odds"] = np.array([0.7, 0.3]) if gold else np.array([0.2, 0.8])
    atoms.arrays["site"] = np.where(atoms.numbers == 79, "guest", "host")
    atoms.info["density"] = len(atoms) / atoms.get_volume()
    return atoms


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks")
    ase.io.write(path / "train.xyz", [labelled(k) for k in range(N)], format="extxyz")
    ase.io.write(path / "test.xyz", [labelled(k) for k in range(100, 116)], format="extxyz")
    return path


def options(targets: dict[str, Any], **training: Any) -> dict[str, Any]:
    return {
        "seed": 1,
        "architecture": {
            "name": "soap-bpnn",
            "model": {
                "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 3.5}},
                "bpnn": {"num_neurons_per_layer": 8},
            },
            "training": {"num_epochs": 25, "batch_size": 8, "learning_rate": 0.01, **training},
        },
        "training_set": {"systems": "train.xyz", "targets": targets},
        "validation_set": 8,
        "test_set": {"systems": "test.xyz", "targets": targets},
    }


def train(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, *given: Any, **training: Any):
    monkeypatch.chdir(folder)
    Path(f"{name}.yaml").write_text(yaml.safe_dump(options(*given, **training)))
    found = api.train(f"{name}.yaml", output=f"{name}.pt")
    if found is None:
        return None
    parts = ("model", "checkpoint", "directory")
    return replace(found, **{part: folder / getattr(found, part) for part in parts})


ALL: dict[str, Any] = {
    "energy": {"unit": "eV", "forces": True, "stress": False},
    "mtt::metal": {"key": "metal", "type": "classes"},
    "mtt::odds": {"key": "odds", "type": {"classes": {"names": ["a", "b"]}}},
    "mtt::gold": {"key": "gold", "type": "binary"},
    "mtt::site": {"key": "site", "type": "classes", "sample_kind": "atom"},
    "mtt::noise": {"type": {"denoising": {"scale": 0.1}}},
    "mtt::density": {"key": "density", "unit": "A^-3", "pooling": "mean"},
}


@pytest.fixture(scope="module")
def result(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        return train(folder, patch, "all", ALL, best_model_metric="loss")


def test_several_tasks_at_once_are_all_learnt(result: Any) -> None:
    errors = result.errors["test"]
    assert errors["mtt::metal"]["accuracy"] == errors["mtt::gold"]["accuracy"] == 1.0
    assert errors["mtt::site"]["balanced accuracy"] == 1.0
    assert errors["mtt::gold"]["ROC AUC"] == 1.0
    # soft labels are recovered: the least possible cross entropy is that of the labels themselves
    least = -sum(p * np.log(p) for p in (0.7, 0.3)) / 2 - sum(p * np.log(p) for p in (0.2, 0.8)) / 2
    assert errors["mtt::odds"]["cross entropy"] == pytest.approx(least, abs=0.02)
    assert errors["mtt::noise"]["relative rmse"] < 0.97 and errors["mtt::noise"]["cosine"] > 0.2
    assert errors["mtt::density"]["r2"] > 0.5
    forces = np.concatenate([labelled(k).get_forces() for k in range(100, 116)])
    assert errors["energy:forces"]["rmse"] < 0.5 * forces.std()


def test_each_task_is_logged_under_its_name(result: Any) -> None:
    rows = list(csv.DictReader((result.directory / "train.csv").open()))
    for column in (
        "validation metal accuracy",
        "validation odds cross entropy",
        "validation gold ROC AUC",
        "validation noise RMSE [A]",
        "validation noise cosine",
        "validation density R2",
        "validation energy RMSE [meV/atom]",
    ):
        assert rows[-1][column] != "", column
    assert float(rows[-1]["validation metal accuracy"]) > float(
        rows[0]["validation metal accuracy"]
    )
    matrix = list(csv.reader((result.directory / "confusion_metal_test.csv").open()))
    assert matrix == [["label / predicted", "alloy", "copper"], ["alloy", "8", "0"],
                      ["copper", "0", "8"]]  # fmt: skip


def test_classes_keep_their_names(result: Any, folder: Path) -> None:
    targets = load_checkpoint(result.checkpoint)["dataset_info"]["targets"]
    assert targets["mtt::metal"]["classes"] == ["alloy", "copper"]
    model = api.load(result.model)
    told = json.loads(model.metadata().extra["dataset_info"])["targets"]
    assert told["mtt::site"]["classes"] == ["guest", "host"]
    outputs = model.capabilities().outputs
    assert outputs["mtt::metal"].sample_kind == "system"
    assert "probabilities of alloy, copper" in outputs["mtt::metal"].description


def test_eval_gives_names_and_the_same_metrics(
    result: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    # types and classes are the model's: they need not be said again
    targets = {name: {"key": t["key"]} for name, t in ALL.items() if "key" in t}
    Path("eval.yaml").write_text(
        yaml.safe_dump({"systems": "test.xyz", "targets": {"energy": "test.xyz", **targets}})
    )
    (found,) = api.evaluate(result.model, "eval.yaml", output="out.xyz")
    for name, metric in (
        ("mtt::metal", "cross entropy"),
        ("mtt::gold", "cross entropy"),
        ("mtt::site", "accuracy"),
        ("mtt::density", "rmse"),
        ("energy", "r2"),
    ):
        expected = result.errors["test"][name][metric]
        assert found.errors[name][metric] == pytest.approx(expected, rel=1e-3, abs=1e-6), name
    for k, frame in enumerate(ase.io.read("out.xyz", ":")):
        assert frame.info["mtt::metal"] == labelled(100 + k).info["metal"]
        assert frame.info["mtt::metal_probabilities"].sum() == pytest.approx(1.0)
        np.testing.assert_array_equal(frame.arrays["mtt_site"], labelled(100 + k).arrays["site"])


def passes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, targets: dict[str, Any]
) -> list[tuple[Any, list[str]]]:
    """Positions and wanted outputs of every call of the model in an epoch of training."""
    seen: list[tuple[Any, list[str]]] = []
    forward = SoapBpnn.forward

    def counting(self: Any, graph: Any, outputs: list[str]) -> Any:
        if not torch.jit.is_scripting() and self.training:
            seen.append((graph.positions.detach().clone(), list(outputs)))
        return forward(self, graph, outputs)

    with monkeypatch.context() as patch:
        patch.setattr(SoapBpnn, "forward", counting)
        patch.setattr("atomtrain.api.finish", lambda *a, **k: None)  # no export of the counter
        train(folder, patch, "passes", targets, num_epochs=1)
    return seen


def test_one_pass_for_each_distinct_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {name: ALL[name] for name in ("energy", "mtt::metal", "mtt::gold", "mtt::noise")}
    seen = passes(folder, monkeypatch, chosen)
    n_steps = (N - 8) // 8
    assert len(seen) == 2 * n_steps
    for (clean, first), (noisy, second) in zip(seen[::2], seen[1::2], strict=True):
        assert "mtt::noise" not in first and second == ["mtt::noise"]
        assert "feature" in first  # both classifications share the pass of the energy
        moved = (noisy - clean).square().mean().sqrt()
        assert 0.05 < float(moved) < 0.2  # denoising after regression sees noise all the same


def test_missing_labels_are_masked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    frames = ase.io.read("train.xyz", ":")
    for k, frame in enumerate(frames):
        if k % 3 == 0:
            del frame.info["metal"]
    ase.io.write("some.xyz", frames, format="extxyz")
    data = options({"mtt::metal": {"key": "metal", "type": "classes"}}, num_epochs=1)
    data["training_set"]["systems"] = "some.xyz"
    Path("some.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(DataError, match="'metal' is missing in 16 of 48 structures"):
        api.train("some.yaml")
    data["training_set"]["targets"]["mtt::metal"]["allow_missing"] = True
    Path("some.yaml").write_text(yaml.safe_dump(data))
    found = api.train("some.yaml")
    counted = found.errors["training"]["mtt::metal"]["count"]
    assert counted + found.errors["validation"]["mtt::metal"]["count"] == 32


def test_data_sets_that_lack_some_targets_train_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    data = options({"mtt::metal": ALL["mtt::metal"]}, num_epochs=1)
    data["training_set"] = [
        data["training_set"],
        {"systems": "test.xyz", "targets": {"mtt::gold": ALL["mtt::gold"],
                                            "mtt::noise": ALL["mtt::noise"]}},
    ]  # fmt: skip
    data["validation_set"] = [8, 4]
    del data["test_set"]
    Path("two.yaml").write_text(yaml.safe_dump(data))
    errors = api.train("two.yaml", output="two.pt").errors["training"]
    assert errors["mtt::metal"]["count"] == 40 and errors["mtt::gold"]["count"] == 12
    assert errors["mtt::noise"]["count"] == 12 * 4 * 3


def weights(path: Path, part: str) -> dict[str, Any]:
    checkpoint = load_checkpoint(path)
    state = (
        checkpoint["model"]["last"] if part == "encoder" else checkpoint["core"]["heads"]["last"]
    )
    return {k: v for k, v in state.items() if part != "encoder" or not k.startswith("heads.")}


@pytest.mark.parametrize(
    ("finetune", "same"),
    [
        ({"method": "encoder"}, False),
        ({"method": "heads"}, True),
        ({"method": "encoder", "freeze_epochs": 2}, True),
    ],
)
def test_pretraining_on_noise(
    folder: Path, monkeypatch: pytest.MonkeyPatch, finetune: dict[str, Any], same: bool
) -> None:
    before = train(folder, monkeypatch, "pre", {"mtt::noise": ALL["mtt::noise"]}, num_epochs=2)
    best = load_checkpoint(before.checkpoint)["model"]["best"]
    after = train(
        folder,
        monkeypatch,
        "fine",
        {"mtt::metal": ALL["mtt::metal"]},
        num_epochs=2,
        finetune={"read_from": "pre.ckpt", **finetune},
    )
    for name, value in weights(after.checkpoint, "encoder").items():
        if value.numel():
            assert torch.equal(value, best[name]) == same, name
    assert weights(after.checkpoint, "heads")
    assert not any("noise" in name for name in load_checkpoint(after.checkpoint)["model"]["last"])


def test_heads_side_by_side_and_restart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"mtt::metal": ALL["mtt::metal"]}
    before = train(folder, monkeypatch, "one", first, num_epochs=2)
    both = {**first, "mtt::gold": ALL["mtt::gold"]}
    tuned = {"read_from": "one.ckpt", "method": "full"}
    train(folder, monkeypatch, "both", both, num_epochs=0, finetune=tuned)
    old, new = (load_checkpoint(f"{name}.ckpt")["core"]["heads"] for name in ("one", "both"))
    for name, value in old["best"].items():
        assert torch.equal(new["last"][name], value)  # the known head came along
    assert any(name.startswith("mtt::gold") for name in new["last"])
    # and a run goes on where it stopped: four epochs are two and two more
    straight = train(folder, monkeypatch, "four", first, num_epochs=4, scheduler="constant")
    train(folder, monkeypatch, "half", first, num_epochs=2, scheduler="constant")
    Path("half.yaml").write_text(yaml.safe_dump(options(first, num_epochs=4, scheduler="constant")))
    resumed = api.train("half.yaml", output="half.pt", restart="half.ckpt")
    for part in ("encoder", "heads"):
        for name, value in weights(straight.checkpoint, part).items():
            assert torch.equal(weights(resumed.checkpoint, part)[name], value), name
    assert before.errors


def test_gradient_free_forces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = {"key": "forces", "unit": "eV/A", "sample_kind": "atom",
              "type": {"cartesian": {"rank": 1, "remove_mean": True}}}  # fmt: skip
    targets = {"non_conservative_force": target}
    found = train(folder, monkeypatch, "direct", targets, num_epochs=15)
    assert found.errors["test"]["non_conservative_force"]["r2"] > 0.5
    Path("eval.yaml").write_text(yaml.safe_dump({"systems": "test.xyz", "targets": targets}))
    (result,) = api.evaluate("direct.pt", "eval.yaml", output=None)
    forces = result.predictions["non_conservative_force"].reshape(16, 4, 3)
    assert float(forces.sum(1).abs().max()) < 1e-5 < float(forces.abs().max())
    same = found.errors["test"]["non_conservative_force"]["rmse"]
    assert result.errors["non_conservative_force"]["rmse"] == pytest.approx(same, rel=1e-4)
    whole = {"key": "density", "type": {"cartesian": {"rank": 1, "remove_mean": True}}}
    with pytest.raises(OptionsError, match="remove_mean is for targets of atoms"):
        train(folder, monkeypatch, "whole", {"mtt::density": whole})


def test_errors_by_element_and_data_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = {name: ALL[name] for name in ("energy", "mtt::site")}
    found = train(folder, monkeypatch, "groups", chosen, num_epochs=1, log_per_element=True,
                  log_per_dataset=True)  # fmt: skip
    lines = (found.directory / "train.log").read_text().splitlines()
    tail = lines[next(k for k, line in enumerate(lines) if "final test errors" in line) :]
    gold = next(line for line in tail if "  Au: " in line)
    whole = next(line for line in tail if "  test.xyz: " in line)
    assert "forces RMSE" in gold and "site accuracy" in gold and "energy" not in gold
    # one file is all there is
    assert whole.split("test.xyz: ")[1] == tail[0].split("best model: ")[1]


@pytest.mark.parametrize(
    "scheduler",
    [
        {"StepLR": {"step_size": 1, "gamma": 0.5}},
        {"ReduceLROnPlateau": {"patience": 0, "threshold": 10.0}},
        {"OneCycleLR": {"max_lr": 1.0, "total_steps": 10}},
    ],
)
def test_torchs_schedulers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, scheduler: dict[str, Any]
) -> None:
    first = {"mtt::metal": ALL["mtt::metal"]}
    straight = train(folder, monkeypatch, "four", first, num_epochs=4, scheduler=scheduler)
    rows = list(csv.DictReader((straight.directory / "train.csv").open()))
    rates = [float(row["learning rate"]) for row in rows]
    assert len(set(rates)) > 1
    if "StepLR" in scheduler:
        np.testing.assert_allclose(rates, [0.01, 0.005, 0.0025, 0.00125])
    train(folder, monkeypatch, "half", first, num_epochs=2, scheduler=scheduler)
    Path("half.yaml").write_text(yaml.safe_dump(options(first, num_epochs=4, scheduler=scheduler)))
    resumed = api.train("half.yaml", output="half.pt", restart="half.ckpt")
    for name, value in weights(straight.checkpoint, "heads").items():
        assert torch.equal(weights(resumed.checkpoint, "heads")[name], value), name


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"StepLr": {"step_size": 1}}, "torch has no scheduler 'StepLr'"),
        ({"StepLR": {"step": 1}}, "scheduler StepLR: .*step"),
        ({"StepLR": {"step_size": 1}, "LinearLR": {}}, "expected one scheduler"),
    ],
)
def test_mistakes_in_schedulers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, scheduler: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        train(folder, monkeypatch, "wrong", {"mtt::metal": ALL["mtt::metal"]}, scheduler=scheduler)


@pytest.fixture(scope="module")
def package(folder: Path) -> Path:
    """A package with two tasks, to be put on the path: ``ordinal`` and ``moved``."""
    source = Path(__file__).parent / "made_up" / "ordinal_task.py"
    assert len(source.read_text().splitlines()) < 140  # it is what the guide shows to authors
    site = folder / "site"
    install(site, "ordinal", group="atomtrain.components", target="ordinal_task")
    return site


GRADE = {"mtt::grade": {"key": "gold", "type": {"ordinal": {"grades": 3}}}}
MOVED = {"mtt::shift": {"type": {"moved": {"by": 0.05}}}}


def test_a_task_of_a_package(folder: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(Exception, match="unknown kind of target 'ordinal'"):
        train(folder, monkeypatch, "grade", GRADE)
    monkeypatch.syspath_prepend(str(package))
    found = train(folder, monkeypatch, "grade", GRADE, num_epochs=5)
    assert found.errors["test"]["mtt::grade"]["accuracy"] == 1.0

    log = (found.directory / "train.log").read_text()
    assert "target 'mtt::grade': grade 0: 19, grade 1: 21, grade 2: 0" in log
    assert "final test errors of the best model: grade MAE 0 grades, grade accuracy 1" in log
    assert "grade: calibration error on the test set" in log
    rows = list(csv.DictReader((found.directory / "train.csv").open()))
    assert float(rows[0]["validation grade MAE [grades]"]) <= 1.0
    matrix = list(csv.reader((found.directory / "confusion_grade_test.csv").open()))
    assert matrix == [["label / predicted", "0", "1", "2"], ["0", "8", "0", "0"],
                      ["1", "0", "8", "0"], ["2", "0", "0", "0"]]  # fmt: skip
    assert "test,1,8,1,1,1" in (found.directory / "classes_grade.csv").read_text()

    output = api.load(found.model).capabilities().outputs["mtt::grade"]
    assert output.description == "probabilities of at least grade 1, 2"
    Path("eval.yaml").write_text(yaml.safe_dump({"systems": "test.xyz", "targets": GRADE}))
    (result,) = api.evaluate("grade.pt", "eval.yaml", output="grade.xyz")
    assert result.errors["mtt::grade"]["mae"] == 0.0
    probabilities = result.predictions["mtt::grade"]
    assert bool((probabilities >= 0).all()) and bool((probabilities <= 1).all())
    for frame, row in zip(ase.io.read("grade.xyz", ":"), probabilities, strict=True):
        assert frame.info["mtt::grade"] == int((row > 0.5).sum())
        np.testing.assert_allclose(frame.info["mtt::grade_thresholds"], row, atol=1e-7)


def test_a_task_of_a_package_that_moves_atoms(
    folder: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(package))
    seen = passes(folder, monkeypatch, {"energy": ALL["energy"], **MOVED})
    for (still, first), (moved, second) in zip(seen[::2], seen[1::2], strict=True):
        assert (first, second) == (["energy"], ["mtt::shift"])
        # of four atoms, whose mean displacement is taken off
        off = float((moved - still).square().mean().sqrt()) / (3 / 4) ** 0.5
        assert off == pytest.approx(0.05, rel=0.3)

    found = train(folder, monkeypatch, "moved", MOVED, num_epochs=1)
    scale = load_checkpoint(found.checkpoint)["core"]["affine"]["affine.0.reference"]
    assert torch.equal(scale, torch.full_like(scale, 0.05))
    log = (found.directory / "train.log").read_text()
    assert "target 'mtt::shift': displacements of 0.05 along each axis" in log
    rows = list(csv.DictReader((found.directory / "train.csv").open()))
    # hardly learnt in one epoch: the error is the displacement, in the unit of length
    error = float(rows[-1]["validation shift RMSE [A]"])
    assert error == pytest.approx(0.05 * (3 / 4) ** 0.5, rel=0.3)


def test_a_column_to_spare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train.xyz", "test.xyz"):
        frames = ase.io.read(folder / name, ":")
        for atoms in frames:
            atoms.info["spare"] = np.array([*atoms.info["odds"], 0.0])
        ase.io.write(folder / name, frames, format="extxyz")
    target = {"mtt::odds": {"key": "spare", "type": "classes"}}
    loss = {"mtt::odds": {"type": "cross_entropy", "class_weights": "balanced"}}
    found = train(folder, monkeypatch, "spare", target, num_epochs=2, loss=loss)
    log = " ".join((found.directory / "train.log").read_text().split())
    assert "the class '2' never occurs in the training set: the model cannot learn it" in log
    assert all(np.isfinite(value) for value in found.errors["test"]["mtt::odds"].values())


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ({"type": {"classes": {"names": ["alloy", "copper", "brass"]}}}, DataError,
         "the class 'brass' never occurs in the training set"),
        ({"type": {"classes": {"names": ["copper", "brass"]}}}, DataError,
         "frame 0 of 'train.xyz': there is no class 'alloy'"),
        ({"key": "metall", "type": "classes"}, DataError, "did you mean 'metal'"),
        ({"type": "classes", "unit": "furlong/fortnight"}, Exception, "not a unit|unit"),
        ({"type": {"cartesian": {"rank": 1}}, "head": {}}, TargetError, "neither 'head'"),
    ],
)  # fmt: skip
def test_mistakes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, target: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        train(folder, monkeypatch, "wrong", {"mtt::metal": {"key": "metal", **target}})
