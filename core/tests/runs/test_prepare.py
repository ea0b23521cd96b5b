"""What is said before a training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers.training import train

LINE = "target 'energy': mean "


def said(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: bool | str) -> str:
    folder.mkdir()
    result = train(folder, monkeypatch, **options)
    return (result.directory / "train.log").read_text()


def test_statistics_are_printed_unless_there_are_many_structures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LINE in said(tmp_path / "auto", monkeypatch)
    assert LINE not in said(tmp_path / "off", monkeypatch, print_stats=False)
    # the function of this name hides its module
    monkeypatch.setattr(sys.modules["atomtrain.runs.prepare"], "LARGE", 11)
    assert LINE not in said(tmp_path / "large", monkeypatch, print_stats="auto")
    assert LINE in said(tmp_path / "asked", monkeypatch, print_stats=True)
