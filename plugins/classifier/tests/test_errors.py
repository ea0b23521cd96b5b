"""What can be wrong is said: what, where, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from helpers.classes import Run, write

from atomtrain.errors import (
    CheckpointError,
    DataError,
    DeviceError,
    OptionsError,
    PluginError,
    TargetError,
)
from atomtrain.model import Predictor


def test_no_checkpoint(run: Run) -> None:
    with pytest.raises(OptionsError, match=r"training\.model_checkpoint: give the path of a"):
        run(model_checkpoint=None)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint 'gone\.ckpt'"):
        run(model_checkpoint="gone.ckpt")


def test_the_checkpoint_is_opened_before_data_are_read(place: Path, run: Run) -> None:
    (place / "train.xyz").write_text("no structures\n")
    with pytest.raises(
        CheckpointError, match=r"training\.model_checkpoint: there is no checkpoint"
    ):
        run(model_checkpoint="gone.ckpt")


def test_a_backbone_without_features(run: Run) -> None:
    with pytest.raises(
        TargetError, match=r"'featureless.ckpt' \(architecture 'rings'\).*'feature'"
    ):
        run(model_checkpoint="featureless.ckpt")


def test_a_classifier_is_no_backbone(run: Run) -> None:
    run(num_epochs=1)
    with pytest.raises(TargetError, match="Classifier cannot be a backbone"):
        run(model_checkpoint="model.ckpt")


def test_a_backbone_that_is_not_installed(run: Run) -> None:
    state = torch.load("backbone.ckpt", weights_only=True)
    state["architecture"].update(name="waves", distribution="atomtrain-waves", version="2.1")
    torch.save(state, "waves.ckpt")
    with pytest.raises(PluginError, match=r"pip install .*atomtrain-waves"):
        run(model_checkpoint="waves.ckpt")


def test_unknown_elements(place: Path, run: Run) -> None:
    write(place / "train.xyz", 4, seed=1, symbol="Ag")
    write(place / "validation.xyz", 4, seed=1, symbol="Ag")
    with pytest.raises(DataError, match=r"atomic numbers \[29\], the data also have \[47\]"):
        run()


def test_another_length_unit(run: Run) -> None:
    systems = {"read_from": "train.xyz", "length_unit": "nm"}
    section = {"systems": systems, "targets": {"mtt::phase": {"key": "phase"}}}
    with pytest.raises(DataError, match="trained in 'angstrom', the data are in 'nm'"):
        run(changes={"training_set": section, "validation_set": 0.2})


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([0.5, 0.2, 0.2], "probabilities of the 3 classes sum to 0.9 instead of 1"),
        ([1.5, -0.5, 0.0], "a probability is negative"),
        ([0.5, 0.5], r"shape \(2,\); expected a class .* or 3 probabilities"),
    ],
)
def test_wrong_probabilities(run: Run, vector: list[float], message: str) -> None:
    frames = ase.io.read("train.xyz", ":")
    frames[7].info["one_hot"] = np.array(vector)
    ase.io.write("train.xyz", frames)
    with pytest.raises(DataError, match=message):
        run({"mtt::phase": {"key": "one_hot", "num_subtargets": 3}})


def test_another_number_of_classes(run: Run) -> None:
    with pytest.raises(DataError, match="or 4 probabilities"):
        run({"mtt::phase": {"key": "one_hot", "num_subtargets": 4}})


def test_a_class_that_never_occurs(run: Run) -> None:
    names = ["fcc", "bcc", "sc", "hcp"]
    with pytest.raises(DataError, match="class 'hcp' never occurs in the training set"):
        run({"mtt::phase": {"key": "phase", "type": {"classes": {"names": names}}}})


def test_an_unknown_class(run: Run) -> None:
    with pytest.raises(DataError, match="there is no class 'sc'"):
        run({"mtt::phase": {"key": "phase", "type": {"classes": {"names": ["fcc", "bcc"]}}}})


@pytest.mark.parametrize("index", [2, -3])
def test_layers_that_do_not_exist(run: Run, index: int) -> None:
    model = {"hidden_sizes": [8, 2], "feature_layer_index": index}
    with pytest.raises(
        OptionsError, match=f"feature_layer_index {index} is out of range: .* 2 lay"
    ):
        run(model=model)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            {"sample_kind": "atom"},
            "belongs to atoms, and the classifier predicts classes of struct",
        ),
        ({"pooling": "max"}, r"set architecture\.model\.pooling"),
        ({"key": "energy", "type": "scalar"}, "predicts classes, with a network of its own"),
        (
            {"head": {"num_hidden": 1}},
            "predicts classes, with a network of its own: leave out 'type'",
        ),
    ],
)
def test_what_belongs_elsewhere(run: Run, target: dict[str, Any], message: str) -> None:
    phase = {"key": "phase", **target}
    if "sample_kind" in target:
        for file in ("train.xyz", "validation.xyz"):
            frames = ase.io.read(file, ":")
            for atoms in frames:
                atoms.new_array("phase", np.full(len(atoms), atoms.info.pop("phase")))
            ase.io.write(file, frames)
    with pytest.raises(TargetError, match=message):
        run({"mtt::phase": phase})


def test_precision_and_device_are_the_backbones(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DeviceError, match=r"'rings' does not compute in bfloat16; set it to 32 or 64"
    ):
        run(changes={"base_precision": 16})
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(DeviceError, match="the model cannot be moved to 'mps' in float"):
        run(changes={"device": "mps"})  # which is not there
    monkeypatch.setattr(Predictor, "to", lambda self, **_: self)
    with pytest.raises(DeviceError, match="'mps' is none the backbone 'rings' runs on"):
        run(changes={"device": "mps"})
