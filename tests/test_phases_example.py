"""examples/phases, shortened: a potential, and a classifier on its features."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

import atomtrain

EXAMPLE = Path(__file__).parent.parent / "examples" / "phases"


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in EXAMPLE.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("make_phases", tmp_path / "make_phases.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    made.write(Path("train.xyz"), 10, made.TRAIN_NOISE, seed=1)
    made.write(Path("test.xyz"), 4, made.TRAIN_NOISE, seed=2)
    atomtrain.train(
        "backbone.yaml", output="backbone.pt", overrides=["architecture.training.num_epochs=1"]
    )
    result = atomtrain.train("options.yaml", overrides=["architecture.training.batch_size=4"])
    # half trained, on a twentieth of the data; chance is 0.25
    assert result.errors["test"]["mtt::phase"]["balanced accuracy"] > 0.6
    assert (result.directory / "map_phase.png").exists()
