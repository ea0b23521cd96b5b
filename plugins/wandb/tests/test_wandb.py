"""The real wandb, offline: what a training leaves, and what is wrong before it begins."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.training import train

from atomtrain.errors import AtomtrainError

pytest.importorskip("wandb")
pytestmark = pytest.mark.filterwarnings("ignore")


def chunks(file: Path) -> Iterator[bytes]:
    """The records of an offline run's file: LevelDB's log format behind a header of 7 bytes."""
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield whole
            whole = b""


def history(file: Path) -> list[dict[str, Any]]:
    """The rows that were logged."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for chunk in chunks(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(chunk)
        if record.HasField("history"):
            items = record.history.item
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = train(
        tmp_path, monkeypatch, "atomtrain_wandb",
        wandb={"project": "water", "mode": "offline", "config": {"mine": 1}},
    )  # fmt: skip
    (file,) = result.directory.glob("wandb/offline-run-*/*.wandb")
    rows = [row for row in history(file) if "training loss" in row]
    with open(result.directory / "train.csv", encoding="utf-8") as csv_file:
        expected = list(csv.DictReader(csv_file))
    assert [row["_step"] for row in rows] == [0, 1, 2]
    for name in ("training loss", "validation energy RMSE [meV/atom]", "learning rate"):
        assert [row[name] for row in rows] == pytest.approx([float(e[name]) for e in expected])


def test_unknown_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AtomtrainError, match=r"wandb: wandb.init has no argument 'projct'; did y"):
        train(tmp_path, monkeypatch, "atomtrain_wandb", wandb={"projct": "water"})
    assert not list(tmp_path.glob("outputs/*/*"))
