"""Classes are learnt, in every form labels come in; restart, fine-tuning, unfreezing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from helpers.classes import Run, options

import atomtrain
from atomtrain.data import Kept
from atomtrain.training.checkpoint import load_checkpoint


@pytest.mark.parametrize(
    "target",
    [
        {"key": "phase"},
        {"key": "number", "type": {"classes": {"names": ["fcc", "bcc", "sc"]}}},
        {"key": "one_hot", "num_subtargets": 3},
        {"key": "one_hot", "type": "scalar", "num_subtargets": 3},
        {"key": "close_packed", "type": "binary"},
    ],
    ids=["names", "integers", "vectors", "scalars", "binary"],
)
def test_forms_of_labels(run: Run, target: dict[str, Any]) -> None:
    result = run({"mtt::phase": target})
    assert result.errors["validation"]["mtt::phase"]["balanced accuracy"] > 0.9


@pytest.mark.parametrize("pooling", ["mean", "sum", "max", "mean_std"])
def test_poolings(run: Run, pooling: str) -> None:
    result = run(model={"pooling": pooling})
    assert result.errors["validation"]["mtt::phase"]["accuracy"] > 0.9


def test_several_targets_at_once(run: Run) -> None:
    result = run({"mtt::phase": {"key": "phase"}, "mtt::close": {"key": "number"}})
    errors = result.errors["validation"]
    assert min(errors[t]["accuracy"] for t in ("mtt::phase", "mtt::close")) > 0.9


def test_soft_labels_are_recovered(place: Path, run: Run) -> None:
    """One structure in two forms: 70 % the one, 30 % the other."""
    for file in ("train.xyz", "validation.xyz"):
        frames = [a for a in ase.io.read(file, ":") if a.info["phase"] != "sc"]
        for atoms in frames:
            mixed = [0.7, 0.3] if atoms.info["phase"] == "fcc" else [0.2, 0.8]
            atoms.info["mixture"] = np.array(mixed)
        ase.io.write(file, frames)
    run({"mtt::mixture": {"key": "mixture", "num_subtargets": 2}}, num_epochs=100)
    for file, measure in (("train.xyz", np.max), ("validation.xyz", np.mean)):
        systems = {"read_from": file, "length_unit": "angstrom"}
        (found,) = atomtrain.evaluate("model.pt", {"systems": systems}, output=None)
        wanted = np.stack([atoms.info["mixture"] for atoms in ase.io.read(file, ":")])
        assert measure(abs(found.predictions["mtt::mixture"].numpy() - wanted)) < 0.02


def test_class_weights_move_the_prediction(place: Path, run: Run) -> None:
    """On labels that say nothing the mean prediction is the weighted share of the class."""
    frames = ase.io.read("train.xyz", ":")
    for k, atoms in enumerate(frames):
        atoms.info["coin"] = int(k % 4 == 0)
    ase.io.write("train.xyz", frames)
    for atoms in (others := ase.io.read("validation.xyz", ":")):
        atoms.info["coin"] = 0
    ase.io.write("validation.xyz", others)
    shares = {}
    for name, loss in (("none", {}), ("balanced", {"class_weights": "balanced"})):
        # a hidden size so small, and epochs so few, that it cannot learn the coins by heart
        run(
            {"mtt::coin": {"key": "coin"}},
            loss={"mtt::coin": loss},
            model={"hidden_sizes": [2], "feature_layer_index": 0},
            best_model_metric="rmse_prod",
            num_epochs=30,
            output=f"{name}.pt",
        )
        shares[name] = _mean_prediction(f"{name}.pt", "train.xyz", "mtt::coin")[1]
    assert shares["none"] < 0.35 < 0.42 < shares["balanced"]


def test_features_are_computed_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import rings_model

    calls: list[int] = []
    original = rings_model.Rings.features
    monkeypatch.setattr(
        rings_model.Rings, "features", lambda s, g: (calls.append(len(g.cells)), original(s, g))[1]
    )
    run(num_epochs=5)
    first, calls[:] = sum(calls), []
    run(num_epochs=10)
    # every structure once, another one of each set to see the width; then the final evaluation finds
    # them again
    assert sum(calls) == first == 36 + 12 + 4


def test_features_on_disk(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_memory = run(num_epochs=4, output="a.pt").errors
    assert run(num_epochs=4, memory_budget=100, output="b.pt").errors == in_memory
    assert "more than memory_budget leaves" in caplog.text
    caplog.clear()
    for again in (False, True):
        found = run(num_epochs=4, feature_cache="cache", output="c.pt", changes={})
        assert found.errors == in_memory
        assert ("features found in" in caplog.text) == again
    files = {p.name for p in (place / "cache").iterdir()}
    assert len(files) == 2 and all(name.endswith(".features") for name in files)

    caplog.clear()  # other data, other features
    frames = ase.io.read("train.xyz", ":")
    frames[0].positions[0, 0] += 0.01
    ase.io.write("train.xyz", frames)
    run(num_epochs=1, feature_cache="cache")
    assert len(list((place / "cache").iterdir())) == 3
    caplog.clear()  # another backbone, other features
    state = torch.load("backbone.ckpt", weights_only=True)
    for weights in (state["model"]["last"], state["model"]["best"]):
        weights["layer.bias"] += 0.1
    torch.save(state, "backbone.ckpt")
    run(num_epochs=1, feature_cache="cache")
    assert len(list((place / "cache").iterdir())) == 5


def test_a_torn_file_is_not_found(tmp_path: Path) -> None:
    example = {"x": torch.zeros(1, 3)}
    for _ in range(2):  # a second run of the same
        kept = Kept(0, folder=tmp_path)
        made = kept.tables("key", example, 4, lambda t: t["x"].copy_(torch.ones(4, 3)))
        assert made["x"].sum() == 12
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:10])


def test_restart_is_exact(place: Path, run: Run) -> None:
    whole = run(num_epochs=8, checkpoint_interval=4, output="whole.pt")
    assert (whole.directory / "model_4.ckpt").exists()
    (place / "backbone.ckpt").unlink()  # it is inside
    run(
        num_epochs=8,
        checkpoint_interval=4,
        output="again.pt",
        restart=str(whole.directory / "model_4.ckpt"),
    )
    _same(load_checkpoint("whole.ckpt"), load_checkpoint("again.ckpt"))


@pytest.mark.parametrize("at", [2, 6])
def test_restart_around_the_unfreezing_is_exact(run: Run, at: int) -> None:
    training = {"num_epochs": 8, "unfreeze_after": 4, "checkpoint_interval": at}
    whole = run(**training, output="whole.pt")
    run(**training, output="again.pt", restart=str(whole.directory / f"model_{at}.ckpt"))
    a, b = load_checkpoint("whole.ckpt"), load_checkpoint("again.ckpt")
    _same(a, b)
    _same(a["embedded"]["backbone"], b["embedded"]["backbone"])


def test_unfreezing(place: Path, run: Run) -> None:
    before = load_checkpoint("backbone.ckpt")["model"]["best"]["layer.weight"]
    frozen = run(num_epochs=6, output="frozen.pt")
    inner = load_checkpoint("frozen.ckpt")["embedded"]["backbone"]["model"]
    assert torch.equal(inner["last"]["layer.weight"], before)
    assert not any(
        n.startswith("backbone") for n in load_checkpoint("frozen.ckpt")["model"]["last"]
    )

    thawed = run(num_epochs=6, unfreeze_after=3, backbone_learning_rate=0.01, output="thawed.pt")
    state = load_checkpoint("thawed.ckpt")
    inner = state["embedded"]["backbone"]["model"]
    assert not torch.equal(inner["last"]["layer.weight"], before)
    assert not any(n.startswith("backbone") for n in state["model"]["last"])
    assert thawed.errors["training"] != frozen.errors["training"]
    # what was exported is what was evaluated, and what the checkpoint gives
    exported = _mean_prediction("thawed.pt", "train.xyz", "mtt::phase")
    atomtrain.export("thawed.ckpt", output="second.pt")
    assert exported == _mean_prediction("second.pt", "train.xyz", "mtt::phase")
    # training goes on from the thawed weights, frozen again
    training = {"finetune": {"read_from": "thawed.ckpt"}, "model_checkpoint": None}
    run(num_epochs=1, output="tuned.pt", **training)
    tuned = load_checkpoint("tuned.ckpt")["embedded"]["backbone"]["model"]["last"]
    assert torch.equal(tuned["layer.weight"], (inner["best"] or inner["last"])["layer.weight"])


def test_a_backbone_with_heads_of_the_core(place: Path, run: Run) -> None:
    """It was trained on classes itself, and goes on learning."""
    described = options({"mtt::close": {"key": "close_packed", "type": "binary"}})
    described["architecture"] = {"name": "rings", "training": {"num_epochs": 1, "batch_size": 6}}
    atomtrain.train(described, output="classes.pt")
    backbone = load_checkpoint("classes.ckpt")
    assert backbone["core"]["heads"]["last"]
    run(num_epochs=3, unfreeze_after=1, model_checkpoint="classes.ckpt")
    inner = load_checkpoint("model.ckpt")["embedded"]["backbone"]
    assert inner["model"]["last"].keys() == backbone["model"]["last"].keys()
    assert inner["core"]["heads"]["last"].keys() == backbone["core"]["heads"]["last"].keys()
    atomtrain.export("model.ckpt", output="second.pt")
    first, second = (
        _mean_prediction(m, "train.xyz", "mtt::phase") for m in ("model.pt", "second.pt")
    )
    assert first == second


def test_fine_tuning_keeps_what_was_learnt(run: Run) -> None:
    run(output="first.pt")
    training: dict[str, Any] = {"finetune": {"read_from": "first.ckpt"}, "model_checkpoint": None}
    same = run(num_epochs=1, learning_rate=1e-6, output="same.pt", **training)
    assert same.errors["validation"]["mtt::phase"]["accuracy"] > 0.9
    more = {"mtt::phase": {"key": "phase"}, "mtt::close": {"key": "close_packed", "type": "binary"}}
    both = run(more, output="both.pt", **training)
    assert both.errors["validation"]["mtt::close"]["accuracy"] > 0.9


def test_reports_and_pictures(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    model = {"hidden_sizes": [16, 2, 8], "feature_layer_index": 1}
    result = run(changes={"test_set": 0.1}, model=model, num_epochs=2)
    folder = result.directory
    for what in ("confusion", "reliability", "map"):
        data = (folder / f"{what}_phase.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert f"{what}_phase.png" in caplog.text
    lines = (folder / "classes_phase.csv").read_text().splitlines()
    assert lines[0] == "set,class,samples,precision,recall,F1"
    assert [line.split(",")[:2] for line in lines[4:7]] == [
        ["validation", c] for c in ("bcc", "fcc", "sc")
    ]


def test_the_peers_file(place: Path) -> None:
    """Its keys, its short forms, its name; the backbone is ours."""
    text = """
seed: 42
architecture:
  name: experimental.classifier
  model:
    hidden_sizes: [8, 2, 8]
    feature_layer_index: 1
  training:
    model_checkpoint: backbone.ckpt
    num_epochs: 2
    batch_size: 10
    max_atoms_per_batch: null
    min_atoms_per_batch: 0
    learning_rate: 0.001
    warmup_fraction: 0.1
    log_interval: 1
    checkpoint_interval: 100
training_set:
  systems: {read_from: train.xyz, length_unit: angstrom}
  targets:
    mtt::class_probabilities: {key: one_hot, num_subtargets: 3}
validation_set: 0.1
test_set: 0.1
"""
    Path("options.yaml").write_text(text)
    result = atomtrain.train("options.yaml")
    assert result.errors["test"]["mtt::class_probabilities"]["count"] == 4
    offered = atomtrain.load("model.pt").capabilities().outputs
    assert set(offered) - {"features"} == {"mtt::class_probabilities", "feature"}


def test_defaults() -> None:
    from atomtrain_classifier.hypers import ModelHypers, TrainerHypers

    model, trainer = ModelHypers(), TrainerHypers()
    assert model.hidden_sizes == [64, 64] and model.feature_layer_index == -1
    assert (trainer.batch_size, trainer.num_epochs, trainer.learning_rate) == (32, 100, 1e-3)
    assert (trainer.warmup_fraction, trainer.best_model_metric) == (0.1, "loss")
    assert (trainer.log_interval, trainer.checkpoint_interval) == (1, 100)
    assert options({})["architecture"]["name"] == "classifier"


def _mean_prediction(model: str, file: str, target: str) -> list[float]:
    systems = {"read_from": file, "length_unit": "angstrom"}
    (found,) = atomtrain.evaluate(model, {"systems": systems}, output=None)
    means: list[float] = found.predictions[target].mean(0).tolist()
    return means


def _same(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Weights of two checkpoints are equal to the last bit."""
    for which in ("last", "best"):
        x, y = a["model"][which], b["model"][which]
        assert (x is None) == (y is None)
        for name in x or {}:
            assert torch.equal(x[name], y[name]), (which, name)
