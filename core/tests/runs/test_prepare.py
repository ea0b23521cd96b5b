"""What is said before a training."""

from __future__ import annotations

import sys
from pathlib import Path

import ase.io
import pytest
from helpers.training import train, write_data

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


def test_warnings_on_the_data_are_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_data(tmp_path / "way.xyz")
    frames = ase.io.read(tmp_path / "way.xyz", ":")
    for atoms in frames:
        atoms.arrays["REF_forces"] = atoms.arrays.pop("way")
    ase.io.write(tmp_path / "mine.xyz", frames)
    section = {"systems": "mine.xyz", "targets": {"energy": {"unit": "eV"}}}
    with caplog.at_level("WARNING", "atomtrain"):
        result = train(tmp_path, monkeypatch, training_set=section)
    warning = "forces of 'energy' in 'mine.xyz': not found, left out, but the file has 'REF_forces'"
    assert warning in caplog.text
    assert warning in (result.directory / "train.log").read_text()
