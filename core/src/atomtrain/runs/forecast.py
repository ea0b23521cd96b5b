"""What a training would take: a step is tried, and nothing is left behind."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from atomtrain.data import StreamedStore
from atomtrain.options import BaseTrainerHypers
from atomtrain.report.durations import duration
from atomtrain.runs.directory import check_outputs
from atomtrain.runs.prepare import Prepared
from atomtrain.training.checkpoint import save_checkpoint
from atomtrain.training.run import TrainingOutcome
from atomtrain.training.trial import PATIENCE, Trial

RUN = "<date>/<time>"


@dataclass(frozen=True)
class Forecast:
    """What a training would take. Times in seconds, sizes in bytes; NaN and None: not known.

    ``parameters`` that are trained, ``structures`` by set; ``preparing``: until the first step; ``step`` of the
    optimiser; ``epoch`` (or another stage, of which there are ``epochs`` left, 0: nobody knows) with its validation;
    ``once``: passes that are made once; ``finishing``: export and final errors; ``total`` of all that. ``memory``: the
    most that the process had, ``gpu``: of tensors there, and of what it has. ``files``: what would be written, by
    path (0: small). ``unknown``: what could not be estimated, in sentences.
    """

    parameters: int
    structures: dict[str, int]
    kept: dict[str, str]
    preparing: float
    step: float
    steps: int
    epoch: float
    epochs: int
    once: float
    finishing: float
    memory: int | None
    memory_before: int | None
    gpu: tuple[int, int] | None
    files: dict[str, int | None]
    free: int
    processes: int = 1
    device: str = "cpu"
    unknown: list[str] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Seconds of the whole training, at most (it may stop early)."""
        if not self.epochs:
            return math.nan
        return self.preparing + self.once + self.epochs * self.epoch + self.finishing

    def lines(self) -> list[str]:
        """The same for people."""
        sets = ", ".join(f"{n} {name}" for name, n in self.structures.items())
        lines = [
            f"structures  {sets}",
            f"parameters  {self.parameters} are trained",
            f"memory      {self._memory()}",
        ]
        kept = ", ".join(f"{part}: {words}" for part, words in self.kept.items())
        lines += [f"kept        {kept}"] if kept else []
        lines += [f"time        {words}" for words in self._times()]
        lines.append("written")
        width = max(map(len, self.files), default=0)
        lines += [f"  {path:{width}}  {_size(size)}" for path, size in self.files.items()]
        needed = sum(size or 0 for size in self.files.values())
        short = ": too little, make room or write fewer checkpoints" * (needed > self.free)
        lines.append(f"  {_size(needed)} in all; {_size(self.free)} are free{short}")
        lines += [f"not known: {words}" for words in self.unknown]
        return lines

    def _memory(self) -> str:
        each = f" (the first of {self.processes} processes)" if self.processes > 1 else ""
        said = "not told by this system"
        if self.memory is not None:
            more = self.memory - (self.memory_before or 0)
            what = f"{_size(more)} more than" if more > 0 else "no more than"
            said = f"{_size(self.memory)} at most, {what} before the first step"
        if self.gpu is not None:
            said = (
                f"{_size(self.gpu[0])} of {_size(self.gpu[1])} on {self.device}; on the CPU {said}"
            )
        return said + each

    def _times(self) -> list[str]:
        lines = [f"{duration(self.preparing)} until the first step (data, model, what is kept)"]
        if not math.isnan(self.step):
            lines.append(f"{duration(self.step)} a step, of which an epoch has {self.steps}")
        what = "an epoch" if self.steps else "a stage"
        if not math.isnan(self.epoch):
            lines.append(f"{duration(self.epoch)} {what} with its validation")
        if self.once > 0.1:
            lines.append(f"{duration(self.once)} what is done once")
        if not math.isnan(self.finishing):
            lines.append(f"{duration(self.finishing)} export and final errors")
        if not math.isnan(self.total):
            left = f"{self.epochs} {'epoch' if self.steps else 'stage'}{'s' * (self.epochs != 1)}"
            lines.append(f"{duration(self.total)} in all, with {left}, if it does not stop early")
        return lines


def forecast(prepared: Prepared, output: Path, outputs: Path, began: float) -> Forecast:
    """Try a step of a training that is ready, and say what all of it would take.

    Its folder is a temporary one; ``outputs`` is where those of runs are, ``output`` the model to be written, and
    ``began`` when (``time.monotonic()``) all this began. Raises what a training would raise until then, and
    KeyboardInterrupt.
    """
    there = check_outputs(outputs)
    run = prepared.run
    run.observers.clear()  # loggers make runs of their own
    run.trial = trial = Trial(run.device, getattr(run.hypers, "accumulate", 1))
    outcome = prepared.train()
    if trial.interrupted:
        raise KeyboardInterrupt
    sizes, exporting = _sizes(prepared, outcome)
    structures = {
        name: len(store) for name, store in prepared.data.sets.items() if store is not None
    }
    about = trial.about
    assert about is not None
    return Forecast(
        parameters=about["n_parameters"],
        structures=structures,
        kept=about["kept"],
        preparing=trial.began - began,
        step=trial.per_step,
        steps=about["n_steps"],
        epoch=trial.per_stage,
        epochs=trial.stages,
        once=trial.once,
        finishing=exporting + _final(prepared, trial),
        memory=trial.peaks[1],
        memory_before=trial.peaks[0],
        gpu=trial.device_memory,
        files=_files(prepared, trial, output, outputs, sizes),
        free=shutil.disk_usage(there).free,
        processes=run.processes.size,
        device=str(run.device),
        unknown=_unknown(prepared, trial),
    )


def _unknown(prepared: Prepared, trial: Trial) -> list[str]:
    """What could not be estimated, and why."""
    name, said = prepared.plan.architecture.info.name, []
    if trial.gave_up:
        said.append(
            f"the time of a training: '{name}' goes through the data in its own way, and did not come to the end of a "
            f"first stage in {PATIENCE:.0f} seconds"
        )
    elif not trial.ended:
        said.append("the time of a step: nothing is left to be trained")
    elif not trial.stages:
        said.append(f"the time in all: '{name}' does not say how many stages it goes through")
    if isinstance(prepared.run.train, StreamedStore):
        said.append("what reading from disk adds: the batches that were tried were read together")
    return said


def _final(prepared: Prepared, trial: Trial) -> float:
    """Seconds of the errors at the end, as validation takes them, or training where there is none."""
    if prepared.plan.options.final_eval is False:
        return 0.0
    atoms = sum(int(s.n_atoms.sum()) for s in prepared.data.sets.values() if s is not None)
    rate = trial.look("validation")
    return atoms * (trial.look("train") if math.isnan(rate) else rate)


def _sizes(prepared: Prepared, outcome: TrainingOutcome) -> tuple[dict[str, int | None], float]:
    """Sizes of a checkpoint and of the exported model, which are written for a moment; and seconds of the export."""
    if not prepared.run.processes.is_main:
        return {"ckpt": None, "pt": None}, math.nan
    path = prepared.run.directory / "trial.ckpt"
    save_checkpoint(outcome.checkpoint, path)
    began = time.monotonic()
    exported = prepared.rehearse(outcome.checkpoint)
    return {"ckpt": path.stat().st_size, "pt": exported}, time.monotonic() - began


def _files(
    prepared: Prepared,
    trial: Trial,
    output: Path,
    outputs: Path,
    sizes: dict[str, int | None],
) -> dict[str, int | None]:
    """What a training writes, by path."""
    hypers: BaseTrainerHypers = prepared.run.hypers
    folder = outputs / RUN
    files: dict[str, int | None] = {
        str(output): sizes["pt"],
        str(output.with_suffix(".ckpt")): sizes["ckpt"],
        f"{folder}/model.pt, model.ckpt": _sum(sizes["pt"], sizes["ckpt"]),
    }
    n, first = hypers.checkpoint_interval, trial.about["first_epoch"] if trial.about else 0
    times = (first + trial.stages) // n - first // n if n else 0
    if times:
        named = f"model_{(first // n + 1) * n}.ckpt" + (
            f", ... ({times} of them)" if times > 1 else ""
        )
        files[f"{folder}/{named}"] = None if sizes["ckpt"] is None else times * sizes["ckpt"]
    kept = prepared.run.kept
    if kept is not None and kept.folder is not None and kept.used:
        files[f"{kept.folder}/ (features)"] = kept.used
    return {**files, f"{folder}/train.log, train.csv, options.yaml, indices/": 0}


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _size(size: int | None) -> str:
    if not size:
        return "not known" if size is None else "small"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
