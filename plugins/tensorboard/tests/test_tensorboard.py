"""The event file of a training has what train.csv has."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from helpers.training import train

from atomtrain.errors import AtomtrainError

pytest.importorskip("tensorboard")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(tmp_path, monkeypatch, "atomtrain_tensorboard", observers="tensorboard")
    events = EventAccumulator(str(result.directory / "tensorboard"))
    events.Reload()
    with open(result.directory / "train.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for tag, column in (
        ("training/loss", "training loss"),
        ("validation/energy RMSE [meV/atom]", "validation energy RMSE [meV/atom]"),
        ("learning rate", "learning rate"),
    ):
        logged = events.Scalars(tag)
        assert [event.step for event in logged] == [0, 1, 2]
        expected = [float(row[column]) for row in rows]
        assert [event.value for event in logged] == pytest.approx(expected, rel=1e-5)
    assert events.Tags()["tensors"] == ["options/text_summary"]


def test_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"tensorboard": {"log_dir": "logs"}}
    train(tmp_path, monkeypatch, "atomtrain_tensorboard", observers=given)
    assert list((tmp_path / "logs").glob("events.out.*"))


@pytest.mark.parametrize("arguments", [{"flush_seconds": 0}, {"logdir": "logs"}])
def test_wrong_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object]
) -> None:
    with pytest.raises(AtomtrainError, match=r"observers.tensorboard: .*(flush_seconds|logdir)"):
        train(tmp_path, monkeypatch, "atomtrain_tensorboard", observers={"tensorboard": arguments})
