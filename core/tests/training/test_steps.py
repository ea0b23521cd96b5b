"""What hypers do to the steps of a training: clipping, stopping, fine-tuning; a trainer of its own."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.installing import install
from helpers.training import train

from atomtrain.training.checkpoint import load_checkpoint

# An encoder and heads, and a trainer of its own around the core's.
TWO_PARTS = """
import tables_arch
from dataclasses import replace
from atomtrain.contract import hookimpl

@hookimpl
def describe_architecture():
    return replace(tables_arch.describe_architecture(), name="two-parts")

@hookimpl
def build_model(dataset_info):
    import torch
    import tables_model

    class TwoParts(tables_model.Tables):
        def __init__(self, dataset_info):
            super().__init__(dataset_info)
            self.encoder = torch.nn.Embedding(100, 1)

        def forward(self, graph, outputs):
            results = super().forward(graph, outputs)
            scale = self.encoder(graph.types)
            return {name: [block * scale for block in blocks] for name, blocks in results.items()}

    return TwoParts(dataset_info)

@hookimpl
def export_model(predictor, metadata):
    from atomtrain.model.export import export_predictor
    predictor.model = tables_arch.build_model(predictor.dataset_info)  # TorchScript needs a file's source
    return export_predictor(predictor, metadata)

@hookimpl
def train_model(model, run):
    from atomtrain.training.engine import train
    (run.directory / "mine.txt").write_text(type(model).__name__)
    return train(model, run)
"""


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "tables", **hypers: Any
) -> tuple[Any, dict[str, torch.Tensor]]:
    """The result of a training and its last weights."""
    if name == "two-parts" and not (folder / "site" / "two_parts.py").exists():
        install(folder / "site", "two-parts", TWO_PARTS)
    training = {"num_epochs": 3, "batch_size": 3, "learning_rate": 0.1, **hypers}
    result = train(folder, monkeypatch, architecture={"name": name, "training": training})
    return result, load_checkpoint(result.checkpoint)["model"]["last"]


def moved(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], part: str = "") -> float:
    """The largest change of a weight."""
    return max(float((a[n] - b[n]).abs().max()) for n in a if n.startswith(part))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_batches_that_make_a_step_together_are_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reduction: str
) -> None:
    def weights(**hypers: Any) -> dict[str, torch.Tensor]:
        training = {
            "num_epochs": 3,
            "learning_rate": 0.1,
            "loss": {"reduction": reduction},
            **hypers,
        }
        architecture = {"name": "tables", "training": training}
        result = train(tmp_path, monkeypatch, architecture=architecture, base_precision=64)
        found = load_checkpoint(result.checkpoint)
        assert found["trainer"]["optimizer"]["state"][0]["step"] == steps
        weights: dict[str, torch.Tensor] = found["model"]["last"]
        weights["loss"] = torch.tensor(found["metrics"]["train_loss"])
        return weights

    steps = 6  # of nine structures, two times four in an epoch
    whole, parts = weights(batch_size=4), weights(batch_size=2, accumulate=2)
    assert moved(whole, parts) < 1e-12
    steps = (
        3  # what does not make a step is left out; and where nothing would be left, all is one step
    )
    assert moved(whole, weights(batch_size=3, accumulate=2)) > 1e-3
    assert moved(weights(batch_size=8), weights(batch_size=2, accumulate=50)) < 1e-12


def test_grad_clip_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, still = run(tmp_path, monkeypatch, learning_rate=1e-30)
    _, free = run(tmp_path, monkeypatch)
    # Adam divides by the size of the gradient plus 1e-8: only a tiny one makes a small step
    _, clipped = run(tmp_path, monkeypatch, grad_clip_norm=1e-14)
    assert moved(still, free) > 0.05
    assert moved(still, clipped) < 1e-5


def test_early_stopping_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run(
        tmp_path, monkeypatch, num_epochs=20, learning_rate=1e-30, early_stopping_patience=2
    )
    with open(result.directory / "train.csv", encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    assert "(stopped early)" in (result.directory / "train.log").read_text()


def test_a_trainer_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run(tmp_path, monkeypatch, "two-parts")
    assert (result.directory / "mine.txt").read_text() == "TwoParts"


@pytest.mark.parametrize(
    ("finetune", "encoder_moves", "heads_move"),
    [
        ({}, True, True),
        ({"method": "heads"}, False, True),
        ({"freeze_epochs": 3}, False, True),
        ({"freeze_epochs": 2}, True, True),
        ({"encoder_learning_rate": 1e-30}, False, True),
    ],
)
def test_finetuning_of_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finetune: dict[str, Any],
    encoder_moves: bool, heads_move: bool,
) -> None:  # fmt: skip
    run(tmp_path, monkeypatch, "two-parts", num_epochs=1)
    (tmp_path / "model.ckpt").rename(tmp_path / "base.ckpt")
    base = load_checkpoint(tmp_path / "base.ckpt")["model"]["best"]
    options = {"finetune": {"read_from": "base.ckpt", **finetune}}
    _, tuned = run(tmp_path, monkeypatch, "two-parts", **options)
    assert (moved(base, tuned, "encoder") > 1e-6) == encoder_moves
    assert (moved(base, tuned, "heads") > 1e-6) == heads_move
