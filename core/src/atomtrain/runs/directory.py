"""The directory of a run, and finding the checkpoint to go on from in earlier ones."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from atomtrain.errors import AtomtrainError, CheckpointError, OutputError
from atomtrain.files import replacing
from atomtrain.training.checkpoint import load_checkpoint

log = logging.getLogger("atomtrain")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]

# What may differ between a run and the one it goes on from: where and how it runs, not what it does.
_HOW_IT_RUNS = (
    "num_epochs",
    "num_workers",
    "distributed",
    "distributed_port",
    "distributed_timeout",
    "memory_budget",
    "log_interval",
    "checkpoint_interval",
)
INCIDENTAL = {
    *((name,) for name in ("device", "wandb", "observers", "print_stats", "final_eval")),
    ("architecture", "environment"),
    *(("architecture", "training", name) for name in _HOW_IT_RUNS),
}


def new_run_directory(base: Path) -> Path:
    """Make ``base/<date>/<time>`` (with a number behind it if two runs start in one second)."""
    now = datetime.now()
    stem = base / now.strftime("%Y-%m-%d") / now.strftime("%H-%M-%S")
    for n in range(1000):
        path = stem if n == 0 else stem.with_name(f"{stem.name}-{n}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(
                f"cannot make the run's directory '{path}': {error.strerror or error}"
            ) from error
    raise OutputError(f"cannot make a run directory below '{base}': too many runs at once")


def write_splits(splits: Mapping[str, Any], directory: Path) -> None:
    """``indices/<set>_<section>.txt``: the frames of each training section that went to a set."""
    folder = directory / "indices"
    folder.mkdir()
    for name, sections in splits.items():
        for k, frames in enumerate(sections):
            if frames is not None:
                text = "\n".join(map(str, frames)) + "\n"
                (folder / f"{name}_{k}.txt").write_text(text, encoding="utf-8")


def checkpoint_of(directory: Path) -> Path:
    """The checkpoint that says most of the run in ``directory``: of its end, or the last there is.

    Raises CheckpointError where there is none.
    """
    if (directory / "model.ckpt").is_file():
        return directory / "model.ckpt"
    found = [p for p in directory.glob("*.ckpt") if not p.name.startswith(".")]
    if not found:
        raise CheckpointError(
            f"'{directory}' is not the folder of a run: there is no checkpoint in it. Runs are in "
            "outputs/<date>/<time>"
        )
    return max(found, key=lambda p: (p.stat().st_mtime_ns, p.name))


def remove_if_empty(directory: Path) -> None:
    """Take away the directory of a run that failed before it made anything but a log."""
    try:
        names = {p.name for p in directory.iterdir()}
        if names <= {"train.log"}:
            for name in names:
                (directory / name).unlink()
            directory.rmdir()
    except OSError:
        pass  # the error that brought us here matters more


def check_writable(path: Path) -> None:
    """Raise OutputError unless a file can be written at ``path``."""
    if path.is_dir():
        raise OutputError(f"cannot write '{path}': it is a directory; give a file name")
    if not path.parent.is_dir():
        raise OutputError(
            f"cannot write '{path}': the directory '{path.parent}' does not exist; make it first"
        )
    _probe(path.parent, path)


def check_outputs(base: Path) -> Path:
    """The folder below which a run's would be made, or what is there of it. Raises OutputError where none can be."""
    there = next(p for p in (base, *base.absolute().parents) if p.exists())
    if not there.is_dir():
        raise OutputError(f"cannot make a run's directory below '{base}': '{there}' is a file")
    _probe(there, base)
    return there


def _probe(folder: Path, path: Path) -> None:
    """Raise OutputError unless files can be made in a folder, for the sake of ``path``."""
    try:  # a name of its own: all processes of a run look at once
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}.", suffix=".probe"):
            pass
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or error}") from error


def deliver(source: Path, destination: Path) -> None:
    """Copy a result of the run to where the user wants it, whole or not at all."""
    if destination.exists():
        log.info(f"replacing the earlier '{destination}'")
    with replacing(destination) as temporary:
        shutil.copyfile(source, temporary)


def newest_checkpoint(
    base: Path, options: dict[str, Any], upgrade: Upgrade
) -> tuple[Path, dict[str, Any]] | None:
    """The newest valid checkpoint below ``base`` whose options match, or None.

    ``upgrade`` brings a checkpoint to the installed versions: hypers may have had other names in an
    earlier one. Damaged files and those of other options are passed over with a line in the log.
    """
    wanted = _essential(options)
    candidates = sorted(
        (p for p in base.glob("*/*/*.ckpt") if p.is_file() and not p.name.startswith(".")),
        key=lambda p: (p.stat().st_mtime_ns, str(p)),
        reverse=True,
    )
    others = 0
    for path in candidates:
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            log.warning(f"not going on from '{path}': {error}")
            continue
        if _essential(_todays_options(checkpoint, upgrade)) == wanted:
            return path, checkpoint
        others += 1
    if others:
        log.info(f"{others} checkpoints below '{base}' belong to other options")
    return None


def _todays_options(checkpoint: dict[str, Any], upgrade: Upgrade) -> dict[str, Any]:
    """The options a checkpoint was trained with, in the words of the installed version."""
    options = checkpoint.get("options") or {}
    try:
        hypers = upgrade(checkpoint)["hypers"]
    except (AtomtrainError, KeyError):  # of another architecture, or of a later version
        return options
    section = {**options["architecture"], "model": hypers["model"], "training": hypers["trainer"]}
    return {**options, "architecture": section}


def _essential(options: Any, path: tuple[str, ...] = ()) -> Any:
    """The options without what is incidental."""
    if path == ("architecture",) and (options.get("training") or {}).get("finetune"):
        options = {**options, "model": None}  # it is that of the checkpoint the training began with
    if isinstance(options, dict):
        return {
            key: _essential(value, (*path, key))
            for key, value in options.items()
            if (*path, key) not in INCIDENTAL
        }
    if isinstance(options, (list, tuple)):
        return [_essential(value, path) for value in options]
    return options
