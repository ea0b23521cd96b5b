"""What a terminal shows of a training: one table, and above it what is no part of it."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from atomtrain.options import BaseTrainerHypers
from atomtrain.report.console import ConsoleObserver, logging_to
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.training.observers import EpochRecord

log = logging.getLogger("atomtrain")


class Screen(io.StringIO):
    """A terminal, or a pipe; ``final`` is what is left of what was drawn over."""

    def __init__(self, terminal: bool = True) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def final(self) -> list[str]:
        rows, row = [""], 0
        for token in re.findall(r"\x1b\[[?\d]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", self.getvalue()):
            if token == "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
            elif token == "\x1b[1A":
                row -= 1
            elif token == "\x1b[2K":
                rows[row] = ""
            elif token[0] not in "\r\x1b":
                rows[row] += token
        return [line.rstrip() for line in rows]


def observer(screen: Screen, targets: int = 0, width: int = 80) -> ConsoleObserver:
    named = {f"mtt::charge_{k}": TargetInfo(f"mtt::charge_{k}", unit="e") for k in range(targets)}
    energy = TargetInfo("energy", unit="eV", gradients=("forces",), quantity="energy")
    info = DatasetInfo("angstrom", [1], {"energy": energy, **named})
    console = Console(
        file=screen, width=width, height=24, force_terminal=screen.terminal, color_system=None,
        _environ={"TERM": "xterm"},
    )  # fmt: skip
    return ConsoleObserver(info, console, BaseTrainerHypers())


def start(seen: ConsoleObserver, n_steps: int = 10) -> None:
    train = type("Store", (list,), {"n_atoms": torch.ones(3)})([0, 1, 2])
    predictor = SimpleNamespace(model=torch.nn.Linear(6, 1))
    run = SimpleNamespace(
        train=train, validation=[0], device="cpu", dtype=torch.float32, predictor=predictor
    )
    about: Any = {
        "n_parameters": 7, "first_epoch": 0, "num_epochs": 3, "n_steps": n_steps, "skipped": (0, 0),
        "balance": "", "kept": {"train": "pair lists"},
    }  # fmt: skip
    seen.on_start(run, about)  # type: ignore[arg-type]


def errors(value: float, targets: int = 0) -> dict[str, dict[str, float]]:
    keys = ["energy", "energy:forces", *(f"mtt::charge_{k}" for k in range(targets))]
    return {key: {"rmse": value, "mae": value, "count": 3.0} for key in keys}


def record(epoch: int, value: float, best: int, targets: int = 0, **more: Any) -> EpochRecord:
    return EpochRecord(
        epoch, 3, value, value, validation_errors=errors(value, targets), best_epoch=best,
        best_errors=errors(best + 1.0, targets), seconds_left=61.0, structures_per_second=5.0, **more,
    )  # fmt: skip


def test_a_table_instead_of_lines_and_the_log_as_ever(tmp_path: Path) -> None:
    logs = []
    for terminal in (True, False):
        screen = Screen(terminal)
        seen = observer(screen)
        with logging_to(tmp_path / f"{terminal}.log", seen.console):
            start(seen)
            seen.on_step(0, 5, 10)
            seen.on_epoch(record(0, 1.0, 0, train_errors=errors(4.0)))
            log.warning("look here")
            seen.on_epoch(record(1, 2.0, 0))
            seen.on_checkpoint(Path("runs/model_1.ckpt"))
            seen.on_end(None)  # type: ignore[arg-type]
            log.info("done")
        text = (tmp_path / f"{terminal}.log").read_text()
        logs.append([line.partition("] ")[2] for line in text.splitlines()])
        shown = screen.final
        assert sum("look here" in line for line in shown) == 1
        assert ("validation loss" in screen.getvalue()) is not terminal
        if terminal:
            below = shown[next(k for k, line in enumerate(shown) if "look here" in line) + 1 :]
            assert [line for line in below if line][:8] == [
                f"Epoch 0/3 {'━' * 4:24} 17 %",
                "0 s passed, 5 structures/s",
                "checkpoint runs/model_1.ckpt",
                "                        training  validation  best",
                "epoch                          0           1     0",
                "loss                           1           2",
                "energy RMSE [meV/atom]      4000        2000  1000",
                "forces RMSE [meV/A]         4000        2000  1000",
            ]
            assert "done" in below[-2]
    assert logs[0] == logs[1] and any("Epoch    1/3" in line for line in logs[0])


@pytest.mark.parametrize("width", [40, 80])
def test_many_targets_and_a_narrow_terminal(width: int) -> None:
    screen = Screen()
    seen = observer(screen, targets=20, width=width)
    start(seen)
    seen.on_epoch(record(0, 1.0, 0, targets=20))
    assert seen.table is not None
    seen.console.print("said meanwhile")
    drawn = screen.getvalue()
    assert "..." in drawn and "charge_19" not in drawn  # as much as fits
    seen.on_failure(ValueError())
    rows = screen.final
    assert sum("charge_" in row for row in rows if "charge_19" in row) == 1  # all, at the end
    assert max(map(len, rows[3:])) <= width
    assert ("training" in "".join(rows[3:])) is (width == 80)
    assert screen.getvalue().rstrip("\n").endswith("\x1b[?25h")


def test_stages_that_are_no_epochs() -> None:
    screen = Screen()
    seen = observer(screen)
    start(seen, n_steps=0)
    seen.on_progress("design matrix", 12, 40, "batches")
    assert seen.table is not None and seen.table.doing == "design matrix, 12/40 batches"
    for k, ridge in enumerate(("ridge 0.1", "ridge 0.01")):
        seen.on_epoch(record(k, 1.0 + k, 0, stage=ridge, best_stage="ridge 0.1"))
    seen.close()
    seen.close()
    text = "\n".join(screen.final)
    assert "Stage 2/3" in text
    assert "stage                   ridge 0.01  ridge 0.01  ridge 0.1" in text
