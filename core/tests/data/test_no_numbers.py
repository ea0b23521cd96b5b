"""What is no number does not become one: words, booleans, dates."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms

from atomtrain.data import build_datasets
from atomtrain.errors import DataError
from atomtrain.frame import Frame
from atomtrain.options import load_options


def build(target: dict[str, Any], file: str = "a.xyz", **section: Any) -> Any:
    given = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": {"systems": file, "targets": {"energy": target}, **section},
        "validation_set": 0.5,
    }
    return build_datasets(load_options(given))


def write(comment: str, columns: str = "species:S:1:pos:R:3", row: str = "") -> None:
    frame = f"2\nProperties={columns} {comment}\nH 0 0 0{row}\nH 0 0 0.74{row}\n"
    Path("a.xyz").write_text(frame * 4)


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("energy", "it is True, not a number"),
        ("energy=T", "it is True"),
        ("energy=F", "it is False"),
        ("energy=unconverged", "it is 'unconverged'"),
        ('energy="-1.5 eV"', "it is '-1.5 eV'"),
        ("energy=2026-11-27", "it is '2026-11-27'"),
    ],
)
def test_no_energies(workplace: Path, comment: str, message: str) -> None:
    write(comment)
    with pytest.raises(DataError, match=f"'energy' of frame 0 in 'a.xyz' does not fit: {message}"):
        build({"key": "energy", "forces": False})


def test_no_forces_and_stress(workplace: Path) -> None:
    write("energy=-1.0", "species:S:1:pos:R:3:f:L:3", " T F F")
    with pytest.raises(DataError, match=r"'f' of frame 0 in 'a.xyz' does not fit: it is True"):
        build({"key": "energy", "forces": {"key": "f"}})
    write('energy=-1.0 s="T T T F F F" Lattice="9 0 0 0 9 0 0 0 9"')
    with pytest.raises(DataError, match=r"'s' of frame 0 .* not a number"):
        build({"key": "energy", "forces": False, "stress": {"key": "s"}})


@pytest.mark.parametrize(
    "value", [datetime.datetime(2026, 11, 27), np.datetime64("2026-11-27"), "1.5", None, 1j, b"1"]
)
def test_no_numbers_of_a_reader(value: Any) -> None:
    from atomtrain.data.readers.base import Wanted
    from atomtrain.data.readers.frames import FramesFile
    from atomtrain.targets import TargetInfo

    atoms = np.array([1]), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool)
    frames = [Frame(*atoms, {"energy": [value]})]
    file = FramesFile("a.dat", frames)
    with pytest.raises(DataError, match="not a number"):
        file.target("energy", TargetInfo("energy"), Wanted(frames, [0], "here"))


def test_flags_of_a_mask_are_numbers(workplace: Path) -> None:
    frames = [Atoms("H2", [(0, 0, 0), (0, 0, 0.7 + 0.01 * k)]) for k in range(4)]
    for k, atoms in enumerate(frames):
        atoms.info.update(energy=-1.0, good=k != 1)
    ase.io.write("a.xyz", frames)
    data = build(
        {"key": "energy", "forces": False},
        extra_data={"energy_mask": {"key": "good"}},
    )
    parts = [data.train, data.validation]
    hidden = [int((~p.labels["energy"].there).sum()) for p in parts]
    assert sum(hidden) == 1
