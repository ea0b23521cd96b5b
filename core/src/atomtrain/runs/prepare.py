"""From a plan to a training that can begin: data read, a model made, everything written down."""

from __future__ import annotations

import copy
import logging
import tempfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atomtrain._version import __version__
from atomtrain.data import Datasets, build_datasets
from atomtrain.errors import AtomtrainError, DeviceError, OptionsError, PluginError, first_line
from atomtrain.files import is_disk, writing
from atomtrain.model.export import describe_checkpoint, save_model
from atomtrain.model.predictor import Predictor
from atomtrain.options import dump_yaml, finetuning
from atomtrain.runs.directory import write_splits
from atomtrain.runs.plan import Plan
from atomtrain.runs.start import begin, checkpoint_to_restart
from atomtrain.runs.tuning import OldAndNew, replayed
from atomtrain.runs.workplace import Workplace
from atomtrain.targets import DatasetInfo
from atomtrain.training.checkpoint import checkpoint_header
from atomtrain.training.distributed import Processes
from atomtrain.training.run import TrainingOutcome, TrainingRun

log = logging.getLogger("atomtrain")
LARGE = 100_000
"""structures in all of which ``print_stats: auto`` prints no statistics"""


@dataclass
class Prepared:
    """A training that is ready: ``run`` is what ``train_model`` gets, ``data`` has the test set too.

    A fine-tuning is looked at by the structures ``tuned_by``, and its ``source`` is the checkpoint's model as it was.
    """

    plan: Plan
    data: Datasets
    run: TrainingRun
    tuned_by: OldAndNew
    source: Predictor | None = None

    def train(self) -> TrainingOutcome:
        """Train, in the architecture's own way or by the core's engine."""
        run = self.run
        try:
            run.predictor.to(device=run.device, dtype=run.dtype)
        except (RuntimeError, TypeError) as error:
            what = f"'{run.device}' in {str(run.dtype).removeprefix('torch.')}"
            raise DeviceError(
                f"device: the model cannot be moved to {what}: {first_line(error)}"
            ) from error
        run.rehearse = self.rehearse
        begins = run.checkpoint is None and run.trial is None and run.processes.is_main
        if begins and self.tuned_by.sets:
            run.began.errors = self.tuned_by.before(run, self.source)
            run.header["began"] = run.began.plain()
        self.source = None
        return self.plan.architecture.train_model(run.predictor.model, run)

    def rehearse(self, checkpoint: dict[str, Any]) -> int | None:
        """Export what there is so far, and give the size of the file; PluginError where that fails."""
        architecture = self.plan.architecture
        metadata = describe_checkpoint(checkpoint, architecture.info)
        try:
            exported = architecture.export_model(copy.deepcopy(self.run.predictor), metadata)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.pt"
                save_model(exported, path)
                return path.stat().st_size
        except Exception as error:
            if is_disk(error):
                log.warning(f"the export of the model was not tried: {error}")
                return None
            raise PluginError(
                "the training was stopped because its model could not be exported: "
                f"{error if isinstance(error, AtomtrainError) else first_line(error, typed=True)}"
            ) from error


def prepare(plan: Plan, place: Workplace, restart: str | Path | None = None) -> Prepared:
    """Read the data and make the model ready, as ``restart``, fine-tuning or neither want it.

    ``restart`` is a checkpoint to go on from, or ``auto`` for the newest of these options beside the
    place's folder. Raises DataError, OptionsError, TargetError, CheckpointError or PluginError.
    """
    _say_what(plan)
    options = plan.options
    found = checkpoint_to_restart(plan, restart, place.outputs or place.directory.parent.parent)
    if found is None:
        plan.open_checkpoints()
    _compare_checkpoints(plan, place.processes, found)
    kind, budget = plan.architecture.info.default_kind, plan.hypers.memory_budget_bytes
    data = build_datasets(options, kind, budget)
    _check_patience(plan, data)
    _say_of_data(data, options.print_stats)
    _compare_data(data, place.processes)
    start = begin(plan, data, found)
    plan.checkpoints.forget()
    if place.processes.is_main:
        with writing(place.directory):
            dump_yaml(plan.completed, place.directory / "options.yaml")
            write_splits(data.splits, place.directory)
    header = checkpoint_header(
        architecture=plan.architecture.identity(),
        options=plan.completed,
        model_hypers=start.model_hypers,
        dataset_info=start.predictor.dataset_info,
        splits=data.splits,
        fingerprint=data.fingerprint,
    )
    run = TrainingRun(
        predictor=start.predictor,
        dataset_info=_of_data(start.predictor.dataset_info, data.info),
        hypers=plan.hypers,
        train=data.train,
        validation=data.validation,
        device=place.device,
        dtype=place.dtype,
        seed=options.seed,
        directory=place.directory,
        header=header,
        processes=place.processes,
        checkpoint=start.checkpoint,
        changed_hypers=start.changed_hypers,
        data_changed=start.data_changed,
        observers=list(plan.observers),
        began=start.began,
        replayed=replayed(plan, data),
    )
    if finetuning(plan.hypers) is not None:
        header["began"] = start.began.plain()
    if found is not None:
        run.remember(found[0])
    return Prepared(plan, data, run, OldAndNew(plan, data, start), start.source)


def _say_of_data(data: Datasets, statistics: bool | str) -> None:
    """What was read; ``statistics``: as ``print_stats`` has it."""
    for note in data.notes:
        log.info(note)
    for warning in data.warnings:
        log.warning(warning)
    if statistics is True or (statistics == "auto" and len(data) <= LARGE):
        for line in data.statistics():
            log.info(line)


def _of_data(model: DatasetInfo, data: DatasetInfo) -> DatasetInfo:
    """What the model is for, without the targets that the data do not have."""
    return replace(model, targets={n: t for n, t in model.targets.items() if n in data.targets})


def _check_patience(plan: Plan, data: Datasets) -> None:
    patience = getattr(plan.hypers, "early_stopping_patience", None)  # not every trainer has one
    if not data.validated and patience is not None:
        where = plan.options.source.where(("architecture", "training", "early_stopping_patience"))
        raise OptionsError(
            f"{where}: without a validation set nothing tells when to stop; leave this out, or give "
            "validation_set some structures"
        )


def _compare_checkpoints(
    plan: Plan, processes: Processes, found: tuple[Path, dict[str, Any]] | None
) -> None:
    """Raise ProcessesError where a process begins with other weights: folders of one host look alike on others."""
    if processes.size == 1:
        return
    values = {"the one to go on from": "none"}
    if found is not None:
        values = {"the one to go on from": _seen(found[0])}
    else:
        values |= {name: _seen(Path(name)) for name in plan.hypers.named_checkpoints().values()}
    processes.compare("checkpoints", values, "Keep them where all hosts see the same")


def _seen(path: Path) -> str:
    """A file by its name and what is in it."""
    return f"{path} ({path.stat().st_size} bytes, {zlib.crc32(path.read_bytes()):08x})"


def _compare_data(data: Datasets, processes: Processes) -> None:
    """Raise ProcessesError unless all read the same."""
    if processes.size == 1:
        return
    values = {
        f"the {name} set": f"{len(store)} structures ({store.fingerprint[:12]})"
        for name, store in data.sets.items()
        if store is not None
    }
    remedy = "Keep the files where all hosts see the same, and do not write to them meanwhile"
    processes.compare("data", values, remedy)


def _say_what(plan: Plan) -> None:
    architecture = plan.architecture
    name, stage, origin = (
        architecture.info.name,
        architecture.info.stage,
        architecture.installed.origin,
    )
    log.info(f"atomtrain {__version__}, {name} ({origin}, {stage})")
    if architecture.notice is not None:
        log.warning(architecture.notice)
