"""Checkpoint files: whole or absent, plain data only."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from atomtrain.errors import CheckpointError, OutputError
from atomtrain.files import replacing
from atomtrain.model.export import load_model
from atomtrain.training.checkpoint import (
    FORMAT,
    FORMAT_VERSION,
    load_checkpoint,
    save_checkpoint,
)

BASE = {"format": FORMAT, "format_version": FORMAT_VERSION}


def test_round_trip_copies_views(tmp_path: Path) -> None:
    large = torch.arange(1_000_000.0)
    save_checkpoint({**BASE, "w": large[:3], "t": (1, None, "x")}, tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").stat().st_size < 10_000
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(loaded["w"], large[:3]) and loaded["t"] == [1, None, "x"]


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    save_checkpoint({**BASE, "n": 1}, tmp_path / "a.ckpt")
    with pytest.raises(TypeError, match="tensors and plain data only, not pathlib"):
        save_checkpoint({**BASE, "p": tmp_path}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["n"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError, match="no"), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError("no")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(OutputError, match="cannot write"), replacing(tmp_path / "no" / "a"):
        pass


@pytest.mark.parametrize("cut", [0, 100, 0.5, 0.99])
def test_cut_off_files(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint({**BASE, "w": torch.ones(1000)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut if cut > 1 else cut * len(data))])
    with pytest.raises(CheckpointError, match=r"is not a checkpoint|is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("read", [load_checkpoint, load_model])
def test_a_checkpoint_of_metatrain_names_the_way_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    """Recognised by a class of its package in the pickle, which is not there to be loaded."""
    name = "metatrain.utils.data.dataset"
    info = type("DatasetInfo", (), {"__module__": name})
    modules = {".".join(name.split(".")[: n + 1]): types.ModuleType("") for n in range(4)}
    modules[name].DatasetInfo = info  # type: ignore[attr-defined]
    path = tmp_path / "theirs.ckpt"

    def save(architecture: str) -> None:
        content = {"architecture_name": architecture, "model_data": {"dataset_info": info()}}
        with monkeypatch.context() as context:
            for module in modules.items():
                context.setitem(sys.modules, *module)
            torch.save(content, path)

    save("soap_bpnn")
    with pytest.raises(CheckpointError, match=r"'soap_bpnn'.*import-metatrain .*theirs\.ckpt"):
        read(path)
    save("scaler")
    with pytest.raises(CheckpointError, match=r"is the scaler of a model .* model\.ckpt beside it"):
        read(path)
    torch.save({"architecture_name": "metatrain-like", "x": tmp_path}, path)
    with pytest.raises(CheckpointError, match=r"other than tensors|is a checkpoint, not"):
        read(path)
