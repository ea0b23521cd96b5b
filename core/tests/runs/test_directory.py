"""The folder of a run: which checkpoint goes on, whether files can be written."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from atomtrain.runs.directory import check_writable, newest_checkpoint
from atomtrain.training.checkpoint import (
    FORMAT,
    FORMAT_VERSION,
    save_checkpoint,
)

BASE = {"format": FORMAT, "format_version": FORMAT_VERSION}


def test_newest_checkpoint_must_match(tmp_path: Path) -> None:
    for k, seed in enumerate((1, 1, 2)):
        folder = tmp_path / "day" / str(k)
        folder.mkdir(parents=True)
        options = {"seed": seed, "architecture": {"training": {"num_epochs": k}}, "wandb": None}
        save_checkpoint({**BASE, "options": options, "k": k}, folder / "a.ckpt")
        os.utime(folder / "a.ckpt", (k, k))
    wanted = {
        "seed": 1,
        "architecture": {"training": {"num_epochs": 9}},
        "observers": {"wandb": {}},
    }
    found = newest_checkpoint(tmp_path, wanted, lambda one: one)
    assert found is not None and found[1]["k"] == 1
    assert newest_checkpoint(tmp_path, {**wanted, "seed": 3}, lambda one: one) is None


def test_processes_look_whether_they_can_write_at_once(tmp_path: Path) -> None:
    """All processes of a run do, in the same moment; none may trip over another's trial."""
    path = tmp_path / "model.pt"
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(check_writable, path) for _ in range(2000)]:
            done.result()
    assert not list(tmp_path.iterdir())
