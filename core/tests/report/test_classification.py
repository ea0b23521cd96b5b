"""Tables and pictures of classifications."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from atomtrain.report.classification import Classified, write_reports
from atomtrain.targets import DatasetInfo, TargetInfo

INFO = DatasetInfo(
    "angstrom",
    (1,),
    {"mtt::x": TargetInfo("mtt::x", "classes", classes=("a", "b"), num_subtargets=2)},
)


def _some(features: np.ndarray | None = None) -> Classified:
    labels = np.array([[1, 0], [1, 0], [0, 1], [np.nan, np.nan], [0, 1]])
    probabilities = np.array([[0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.5, 0.5], [0.2, 0.8]])
    return Classified(labels, probabilities, np.array([[1, 1], [0, 2]]), features)


def test_numbers() -> None:
    found = _some()
    assert found.there.tolist() == [True, True, True, False, True]
    mean, frequency, count = found.calibration()
    assert count.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 1, 2]
    assert (mean[9], frequency[9], frequency[5]) == (0.9, 1.0, 0.0)
    assert found.calibration_error() == pytest.approx((2 * 0.1 + 0.55 + 0.2) / 4)


def test_perfect_calibration_has_no_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    y = (rng.random(200_000) < p).astype(float)
    found = Classified(np.stack([1 - y, y], 1), np.stack([1 - p, p], 1), np.eye(2))
    assert found.calibration_error() < 0.01


@pytest.mark.parametrize("width", [1, 2, 5])
def test_files(tmp_path: Path, width: int) -> None:
    pytest.importorskip("matplotlib")
    found = _some(np.random.default_rng(0).random((5, width)))
    pictures = write_reports(tmp_path, {"training": {"mtt::x": found}}, INFO)
    names = ["confusion_x.png", "reliability_x.png"] + (["map_x.png"] if width < 3 else [])
    assert [p.name for p in pictures] == names
    table = (tmp_path / "classes_x.csv").read_text().splitlines()
    assert table[1:] == ["training,a,2,1,0.5,0.666667", "training,b,2,0.666667,1,0.8"]


def test_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    caplog.set_level("INFO", "atomtrain")
    assert write_reports(tmp_path, {"training": {"mtt::x": _some()}}, INFO) == []
    assert "install matplotlib" in caplog.text
    assert (tmp_path / "classes_x.csv").exists()
