"""What the command line does, as functions: ``train``, ``evaluate``, ``export``, ``load``, ``show``.

Whatever a user can get wrong raises an :class:`~atomtrain.errors.AtomtrainError` whose message the
command line prints.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import atomtrain
from atomtrain.contract import Architecture, open_architecture
from atomtrain.data import Datasets, build_datasets
from atomtrain.errors import (
    AtomtrainError,
    CheckpointError,
    OutputError,
    PluginError,
)
from atomtrain.evaluation import Evaluation, evaluate_model
from atomtrain.files import file_stem
from atomtrain.model.export import (
    describe_checkpoint,
    load_model,
    merge_metadata,
    read_metadata,
    save_model,
)
from atomtrain.options import (
    DatasetSection,
    Options,
    TrainerHypers,
    check_units,
    complete,
    dump_yaml,
    load_eval_options,
    load_options,
)
from atomtrain.report.classification import Classified, classified, write_reports
from atomtrain.report.confusion import write_confusion
from atomtrain.report.console import ConsoleObserver, CsvObserver, logging_to
from atomtrain.report.statistics import say_statistics
from atomtrain.report.units import errors_line
from atomtrain.training import distributed
from atomtrain.training.checkpoint import (
    checkpoint_header,
    fetched,
    load_checkpoint,
    save_checkpoint,
)
from atomtrain.training.checks import (
    check_checkpoints,
    check_targets,
    checked_hypers,
    make_observers,
)
from atomtrain.training.device import choose_device, choose_dtype
from atomtrain.training.directory import (
    check_writable,
    deliver,
    new_run_directory,
    remove_if_empty,
    write_splits,
)
from atomtrain.training.evaluate import Samples, errors_on
from atomtrain.training.restore import checkpoint_to_restart, restore
from atomtrain.training.run import TrainingOutcome, TrainingRun
from atomtrain.training.start import from_finetune, from_restart, from_scratch

if TYPE_CHECKING:
    from metatomic.torch import AtomisticModel
    from pydantic import BaseModel

    from atomtrain.model.predictor import Predictor
    from atomtrain.training.observers import Errors, Observer

log = logging.getLogger("atomtrain")
OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class TrainingResult:
    """Where the results of a training are, and its errors by set (``train``, ``test``, ...)."""

    model: Path | None
    checkpoint: Path
    directory: Path
    errors: dict[str, Errors]
    interrupted: bool = False


def train(
    options: str | Path | Mapping[str, Any],
    *,
    output: str | Path = "model.pt",
    extensions: str | Path | None = None,
    overrides: Sequence[str] = (),
    restart: str | Path | None = None,
) -> TrainingResult:
    """Train what an options file (or a dictionary of the same keys) describes.

    Writes ``output`` (the exported model) and the checkpoint beside it, and everything else into
    ``outputs/<date>/<time>/``. ``restart`` is a checkpoint to go on from, or ``auto``. Raises an
    AtomtrainError before any training for whatever is wrong with options, data or machine.
    """
    output = Path(output)
    if output.suffix != ".pt":
        raise OutputError(f"'{output}' should end in '.pt': it will be an exported model")
    loaded = load_options(options, overrides)
    architecture = open_architecture(loaded.architecture.name)
    model_hypers, hypers = checked_hypers(architecture, loaded)
    check_writable(output)
    check_units([s for s in loaded.training_set if isinstance(s, DatasetSection)])
    check_targets(architecture, loaded, hypers)
    check_checkpoints(loaded, hypers)
    observers = make_observers(loaded)
    alone = distributed.tasks_in_environment()
    device = choose_device(
        loaded.device, architecture.info.devices, alone[1].local_rank if alone else 0
    )
    dtype = choose_dtype(loaded.base_precision, architecture.info.dtypes)
    if loaded.device == "multi-gpu":
        log.warning(
            "device: multi-gpu uses one GPU per process; start several with 'torchrun "
            "--nproc-per-node N -m atomtrain train ...'"
        )
    processes = distributed.start(hypers.distributed, hypers.distributed_port, device.type)
    console = Console(quiet=not processes.is_main)
    try:
        directory = Path(
            processes.broadcast(str(new_run_directory(OUTPUTS)) if processes.is_main else "")
        )
        file = directory / "train.log" if processes.is_main else None
        with logging_to(file, console, quiet=not processes.is_main):
            try:
                return _train(
                    loaded,
                    architecture,
                    model_hypers,
                    hypers,
                    output=output,
                    extensions=extensions,
                    restart=restart,
                    device=device,
                    dtype=dtype,
                    processes=processes,
                    directory=directory,
                    console=console,
                    observers=observers,
                )
            except BaseException:
                if processes.is_main:
                    remove_if_empty(directory)
                raise
    finally:
        distributed.stop(processes)


def _train(
    options: Options,
    architecture: Architecture,
    model_hypers: BaseModel,
    hypers: TrainerHypers,
    *,
    output: Path,
    extensions: str | Path | None,
    restart: str | Path | None,
    device: Any,
    dtype: Any,
    processes: distributed.Processes,
    directory: Path,
    console: Console,
    observers: Sequence[Observer],
) -> TrainingResult:
    identity = architecture.identity()
    log.info(
        "atomtrain %s, %s (%s %s, %s)",
        atomtrain.__version__,
        identity["name"],
        identity["distribution"],
        identity["version"],
        architecture.info.stage,
    )
    _say_deprecated(architecture)
    data = build_datasets(options, architecture.info.default_kind)
    for note in data.notes:
        log.info("%s", note)
    if options.print_stats is not False:
        say_statistics(data)

    completed = complete(options, model_hypers, hypers)
    checkpoint, came_from = checkpoint_to_restart(restart, completed, architecture, OUTPUTS)
    fingerprint = data.fingerprint
    if checkpoint is not None:
        predictor = from_restart(checkpoint, model_hypers, hypers, data.info, fingerprint)
        log.info("restarting from '%s'", came_from)
    elif hypers.finetune is not None:
        predictor = from_finetune(architecture, hypers, data.info, data.train, options.seed)
        log.info("fine-tuning '%s' (%s)", hypers.finetune.read_from, hypers.finetune.method)
    else:
        predictor = from_scratch(
            architecture, model_hypers, hypers, data.info, data.train, options.seed
        )
    if processes.is_main:
        dump_yaml(completed, directory / "options.yaml")
        write_splits(data.splits, directory)
    if hypers.finetune is not None and checkpoint is None:
        model_dump = load_checkpoint(hypers.finetune.read_from)["hypers"]["model"]
    else:
        model_dump = completed["architecture"]["model"]

    run = TrainingRun(
        predictor=predictor,
        dataset_info=predictor.dataset_info,
        hypers=hypers,
        train=data.train,
        validation=data.validation,
        device=device,
        dtype=dtype,
        seed=options.seed,
        directory=directory,
        header=checkpoint_header(
            architecture=identity,
            options=completed,
            model_hypers=model_dump,
            dataset_info=predictor.dataset_info,
            splits=data.splits,
            fingerprint=fingerprint,
        ),
        processes=processes,
        checkpoint=checkpoint,
        observers=[
            ConsoleObserver(predictor.dataset_info, console, hypers),
            CsvObserver(directory / "train.csv", predictor.dataset_info, hypers),
            *observers,
        ],
    )
    outcome = architecture.train_model(predictor.model, run)
    if not processes.is_main:
        return TrainingResult(None, directory / "model.ckpt", directory, {}, outcome.interrupted)
    if outcome.interrupted:
        path = directory / "interrupted.ckpt"
        log.warning("stopped by a signal; go on with: atomtrain train ... --restart %s", path)
        return TrainingResult(None, path, directory, {}, True)
    return _finish(architecture, options, predictor, outcome, run, data, output, extensions)


def _finish(
    architecture: Architecture,
    options: Options,
    predictor: Predictor,
    outcome: TrainingOutcome,
    run: TrainingRun,
    data: Datasets,
    output: Path,
    extensions: str | Path | None,
) -> TrainingResult:
    """Final checkpoint, exported model, errors on all sets, and the summary."""
    save_checkpoint(outcome.checkpoint, run.directory / "model.ckpt")
    predictor.model.load_state_dict(outcome.best_weights)
    metadata = describe_checkpoint(outcome.checkpoint, architecture.info)
    exported = architecture.export_model(predictor, metadata)
    foreign = save_model(exported, run.directory / "model.pt", extensions=extensions)
    if foreign:
        log.warning("the model needs the libraries in '%s' beside it", extensions)
    deliver(run.directory / "model.ckpt", output.with_suffix(".ckpt"))
    deliver(run.directory / "model.pt", output)

    def said(found: Errors) -> str:
        totals = run.hypers.per_structure_targets
        return errors_line(run.dataset_info, found, ("rmse", "mae"), totals)

    errors: dict[str, Errors] = {}
    pictures: list[Path] = []
    if options.final_eval:
        classes_of: dict[str, dict[str, Classified]] = {}
        for name, store in (
            ("training", data.train),
            ("validation", data.validation),
            ("test", data.test),
        ):
            if store is None:
                continue
            samples = Samples()
            sums, groups = errors_on(
                copy.deepcopy(predictor),
                store,
                run.device,
                run.dtype,
                run.hypers,
                run.seed,
                kept=run.kept,
                samples=samples,
            )
            classes_of[name] = classified(samples, run.dataset_info)
            errors[name] = sums.results()
            for target, matrix in sums.confusions().items():
                classes = run.dataset_info.targets[target].classes
                title = target.removeprefix("mtt::")
                file = run.directory / f"confusion_{file_stem(title)}_{name}.csv"
                write_confusion(file, matrix, classes)
            log.info(
                "final %s errors of the best model: %s",
                name,
                said(errors[name]),
            )
            for group, part in groups.items():
                line = said(part.results())
                if line:
                    log.info("  %s: %s", group, line)
        pictures = write_reports(run.directory, classes_of, run.dataset_info)
    log.info(
        "done%s; best epoch %s",
        " (stopped early)" if outcome.stopped_early else "",
        outcome.checkpoint["trainer"]["best_epoch"],
    )
    log.info("  model       %s (for ASE, LAMMPS, i-PI, torch-sim)", output)
    log.info("  checkpoint  %s (for restart, fine-tuning, export)", output.with_suffix(".ckpt"))
    log.info("  run         %s (log, train.csv, options, splits, checkpoints)", run.directory)
    if pictures:
        log.info("  pictures    %s", ", ".join(map(str, pictures)))
    log.info("next: atomtrain show %s; atomtrain eval %s eval.yaml", output, output)
    return TrainingResult(output, output.with_suffix(".ckpt"), run.directory, errors)


def evaluate(
    model: str | Path,
    options: str | Path | Mapping[str, Any] | list[Any],
    *,
    output: str | Path | None = "output.xyz",
    batch_size: int = 1,
    extensions: str | Path | None = None,
    check_consistency: bool = False,
) -> list[Evaluation]:
    """Run an exported model on the structures of an eval file (or what one would hold).

    Writes predictions to ``output`` (``output_0.xyz``, ... for several sections; None: nowhere), in
    the format of its extension (``.xyz``, ``.mts``, ``.zip``; a name without one, or a text that
    ends in a slash, is a folder of arrays), and logs errors for the targets the file has. Gives one
    result per section.
    """
    with logging_to(None, Console()):
        sections = load_eval_options(options)
        check_units(sections)
        return evaluate_model(
            Path(model),
            sections,
            output,
            batch_size=batch_size,
            extensions=extensions,
            check_consistency=check_consistency,
        )


def export(
    checkpoint: str | Path,
    *,
    output: str | Path | None = None,
    metadata: str | Path | None = None,
    extensions: str | Path | None = None,
) -> Path:
    """Export a checkpoint (a path or https address) as a metatomic model.

    ``output`` ending in ``.ckpt`` writes a checkpoint with the ``metadata`` (a YAML file) in it.
    """
    with logging_to(None, Console()):
        with fetched(checkpoint) as path:
            state = load_checkpoint(path)
        remote = str(checkpoint).startswith("https://")
        default = Path(str(checkpoint).rsplit("/", 1)[-1] if remote else checkpoint)
        output = default.with_suffix(".pt") if output is None else Path(output)
        check_writable(output)
        user = read_metadata(metadata) if metadata is not None else {}
        if output.suffix == ".ckpt":
            state["metadata"] = merge_metadata(state.get("metadata") or {}, user)
            save_checkpoint(state, output)
        else:
            architecture, predictor = restore(state, "export")
            _say_deprecated(architecture)
            described = describe_checkpoint(state, architecture.info, user)
            save_model(
                architecture.export_model(predictor, described), output, extensions=extensions
            )
        log.info("written: %s", output)
        return output


def load(path: str | Path, *, extensions: str | Path | None = None) -> AtomisticModel:
    """The metatomic model of a checkpoint (exported in memory) or of an exported model."""
    path = Path(path)
    if path.suffix == ".ckpt":
        state = load_checkpoint(path)
        architecture, predictor = restore(state, "export")
        _say_deprecated(architecture)
        model: AtomisticModel = architecture.export_model(
            predictor, describe_checkpoint(state, architecture.info)
        )
        return model
    return load_model(path, extensions=extensions)


def show(path: str | Path) -> dict[str, Any]:
    """What a checkpoint or an exported model is: plain data, the same keys for both."""
    from atomtrain.report.show import describe, describe_model

    path = Path(path)
    try:
        described = describe(load_checkpoint(path), "checkpoint")
    except CheckpointError as error:
        if "exported model" not in str(error):
            raise
        described = describe_model(load_model(path))
    if described.get("architecture"):
        described["installed"] = _installed(described["architecture"])
    return described


# -- pieces --------------------------------------------------------------------------------------


def _say_deprecated(architecture: Architecture) -> None:
    if architecture.notice is not None:
        log.warning("%s", architecture.notice)


def _installed(identity: dict[str, Any]) -> dict[str, Any]:
    """What is known today of the architecture of a file: version, stage, or how to get it."""
    try:
        origin = f"{identity.get('distribution') or ''} {identity.get('version') or ''}".strip()
        architecture = open_architecture(identity["name"], origin)
    except PluginError as error:
        return {"problem": str(error)}
    known = {"version": architecture.installed.version, "stage": architecture.info.stage}
    return {**known, "notice": architecture.notice} if architecture.notice else known


__all__ = [
    "AtomtrainError",
    "TrainingResult",
    "evaluate",
    "export",
    "load",
    "show",
    "train",
]
