"""Models taken over from metatrain predict what metatrain predicts."""

from __future__ import annotations

import copy
import gzip
import io
import sys
from pathlib import Path
from typing import Any

import ase.io
import pytest
import torch
from helpers.structures import graph_of
from typer.testing import CliRunner

from atomtrain.errors import CheckpointError, OutputError
from atomtrain.model import forces_and_strain, with_leaves
from atomtrain.plugins.restore import restore
from atomtrain.training.checkpoint import load_checkpoint, save_checkpoint
from atomtrain_soap_bpnn.metatrain.command import app, convert, unpack

GOLDEN = Path(__file__).parent


def golden(name: str) -> dict[str, Any]:
    data = gzip.decompress((GOLDEN / f"{name}.gz").read_bytes())
    found: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    found["plain"]["last"] = found["plain"]["best"]
    return found


@pytest.mark.parametrize("name", ["legacy", "shared"])
def test_predictions_are_metatrains(name: str, tmp_path: Path) -> None:
    """To 1e-5 of the largest entry: metatrain keeps the knots of its splines in float32."""
    found = golden(name)
    save_checkpoint(convert(found["plain"]), tmp_path / "ours.ckpt")
    predictor = restore(load_checkpoint(tmp_path / "ours.ckpt"), "export").predictor.eval()
    predictor.model.to(torch.float64)
    frames = ase.io.read(GOLDEN / "structures.xyz", ":")
    names = predictor.target_names
    assert len(names) == 8
    for k, atoms in enumerate(frames):
        graph = with_leaves(graph_of([atoms], cutoff=predictor.model.cutoff))
        blocks = predictor(graph, names)
        forces, _ = forces_and_strain(
            blocks["energy"][0], graph, strain=False, create_graph=False, retain_graph=True
        )
        ours = {n: torch.cat([b.flatten() for b in blocks[n]]) for n in names}
        for key, value in {**ours, "F": forces}.items():
            reference = found["reference"][f"{key}/{k}"]
            error = (value.detach() - reference).abs().max() / reference.abs().max()
            assert float(error) < 1e-5, (key, float(error))


def test_elements_in_any_order() -> None:
    """metatrain may list its elements in another order than ours."""
    plain = golden("legacy")["plain"]
    ours = convert(plain)
    other = copy.deepcopy(plain)
    other["atomic_types"] = plain["atomic_types"][::-1]
    swapped = convert(other)
    assert swapped["dataset_info"] == ours["dataset_info"]
    a = ours["model"]["best"]["network.first.weight"]
    b = swapped["model"]["best"]["network.first.weight"]
    assert a.shape == b.shape and not torch.equal(a, b)


def test_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="metatrain is not installed for"):
        unpack(file, sys.executable)
    with pytest.raises(CheckpointError, match="cannot run '/no/such/python'"):
        unpack(file, "/no/such/python")
    run = CliRunner().invoke(app, [str(file), "-o", str(tmp_path / "model.pt")])
    assert isinstance(run.exception, OutputError) and "should end in '.ckpt'" in str(run.exception)
    run = CliRunner().invoke(app, [str(tmp_path / "none.ckpt")])
    assert isinstance(run.exception, CheckpointError)
    plain = golden("legacy")["plain"]
    plain["best"].pop("layernorm.module_list.1.weight")
    with pytest.raises(CheckpointError, match=r"no 'layernorm.module_list.1.weight'"):
        convert(plain)
