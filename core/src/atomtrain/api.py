"""What the command line does, as functions: ``train``, ``evaluate``, ``export``, ``load``, ``show``.

Whatever a user can get wrong raises an :class:`~atomtrain.errors.AtomtrainError` whose message the
command line prints.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

import atomtrain
from atomtrain.contract import Architecture, component, open_architecture
from atomtrain.data import Datasets, build_datasets
from atomtrain.errors import (
    AtomtrainError,
    CheckpointError,
    OptionsError,
    OutputError,
    PluginError,
    TargetError,
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
from atomtrain.model.heads import split_targets
from atomtrain.options import (
    DatasetSection,
    Options,
    TrainerHypers,
    check_units,
    complete,
    dump_yaml,
    load_eval_options,
    load_options,
    target_info,
    validate_hypers,
)
from atomtrain.report.confusion import write_confusion
from atomtrain.report.console import ConsoleObserver, CsvObserver, logging_to
from atomtrain.report.units import errors_line
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.training import distributed
from atomtrain.training.checkpoint import (
    FORMAT,
    FORMAT_VERSION,
    load_checkpoint,
    save_checkpoint,
)
from atomtrain.training.device import choose_device, choose_dtype
from atomtrain.training.directory import (
    check_writable,
    deliver,
    new_run_directory,
    newest_checkpoint,
)
from atomtrain.training.evaluate import errors_on
from atomtrain.training.restore import restore
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
    model_hypers, hypers = _hypers(architecture, loaded)
    check_writable(output)
    check_units([s for s in loaded.training_set if isinstance(s, DatasetSection)])
    _check_targets(architecture, loaded, hypers)
    _check_checkpoints(loaded, hypers)
    observers = _observers(loaded)
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
                    _remove_if_empty(directory)
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
    _say_statistics(options, data)

    completed = complete(options, model_hypers, hypers)
    checkpoint, came_from = _checkpoint_to_restart(restart, completed, architecture)
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
        _write_splits(data, directory)
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
        header={
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "atomtrain_version": atomtrain.__version__,
            "architecture": identity,
            "options": completed,
            "hypers": {"model": model_dump, "trainer": completed["architecture"]["training"]},
            "dataset_info": predictor.dataset_info.to_dict(),
            "splits": data.splits,
            "fingerprint": fingerprint,
            "metadata": {},
        },
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

    errors: dict[str, Errors] = {}
    if options.final_eval:
        for name, store in (
            ("training", data.train),
            ("validation", data.validation),
            ("test", data.test),
        ):
            if store is None:
                continue
            sums, groups = errors_on(
                copy.deepcopy(predictor), store, run.device, run.dtype, run.hypers, run.seed
            )
            errors[name] = sums.results()
            for target, matrix in sums.confusions().items():
                classes = run.dataset_info.targets[target].classes
                title = target.removeprefix("mtt::")
                file = run.directory / f"confusion_{file_stem(title)}_{name}.csv"
                write_confusion(file, matrix, classes)
            log.info(
                "final %s errors of the best model: %s",
                name,
                errors_line(
                    run.dataset_info,
                    errors[name],
                    ("rmse", "mae"),
                    run.hypers.per_structure_targets,
                ),
            )
            for group, part in groups.items():
                line = errors_line(
                    run.dataset_info,
                    part.results(),
                    ("rmse", "mae"),
                    run.hypers.per_structure_targets,
                )
                if line:
                    log.info("  %s: %s", group, line)
    log.info(
        "done%s; best epoch %s",
        " (stopped early)" if outcome.stopped_early else "",
        outcome.checkpoint["trainer"]["best_epoch"],
    )
    log.info("  model       %s (for ASE, LAMMPS, i-PI, torch-sim)", output)
    log.info("  checkpoint  %s (for restart, fine-tuning, export)", output.with_suffix(".ckpt"))
    log.info("  run         %s (log, train.csv, options, splits, checkpoints)", run.directory)
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
        path, temporary = _fetched(checkpoint)
        try:
            state = load_checkpoint(path)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
        default = Path(str(checkpoint).rsplit("/", 1)[-1] if temporary else checkpoint)
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


def _hypers(architecture: Architecture, options: Options) -> tuple[BaseModel, TrainerHypers]:
    model = validate_hypers(
        architecture.model_hypers_class(),
        options.architecture.model,
        ("architecture", "model"),
        options.source,
    )
    training = validate_hypers(
        architecture.trainer_hypers_class(),
        options.architecture.training,
        ("architecture", "training"),
        options.source,
    )
    assert isinstance(training, TrainerHypers)
    return model, training


def _check_targets(architecture: Architecture, options: Options, hypers: TrainerHypers) -> None:
    """Whether architecture and hypers suit the targets, before any data are read."""
    targets: dict[str, TargetInfo] = {}
    extra_data: set[str] = set()
    for section in options.training_set:
        for name, target in section.targets.items():
            try:
                targets[name] = target_info(name, target, architecture.info.default_kind)
            except TargetError as error:
                raise OptionsError(f"{section.where('targets', name)}: {error}") from None
        extra_data.update(section.extra_data)
    split_targets(
        DatasetInfo("", (), targets), architecture.info.target_kinds, architecture.info.name
    )
    problems = hypers.check_targets(targets, extra_data)
    if problems:
        path, message = problems[0]
        raise OptionsError(
            f"{options.source.where(('architecture', 'training', *path))}: {message}"
        )


def _check_checkpoints(options: Options, hypers: TrainerHypers) -> None:
    """Whether the checkpoints that hypers name can be read."""
    named: dict[tuple[str, ...], Any] = {("atomic_baseline",): hypers.atomic_baseline}
    if hypers.finetune is not None:
        named["finetune", "read_from"] = hypers.finetune.read_from
    for path, file in named.items():
        if isinstance(file, str):
            try:
                load_checkpoint(file)
            except CheckpointError as error:
                where = options.source.where(("architecture", "training", *path))
                raise CheckpointError(f"{where}: {error}") from error


def _observers(options: Options) -> list[Observer]:
    """The loggers and callbacks of packages that the options name."""
    wanted = dict(options.observers)
    if options.wandb is not None:
        wanted["wandb"] = options.wandb
    made: list[Observer] = []
    for name, arguments in wanted.items():
        path = ("wandb",) if name == "wandb" and options.wandb is not None else ("observers", name)
        where = options.source.where(path)
        try:
            factory = component("register_observers", name).load()
        except AtomtrainError as error:
            raise PluginError(f"{where}: {error}") from error
        except Exception as error:
            raise PluginError(
                f"{where}: the observer '{name}' cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        try:
            made.append(factory(**arguments))
        except Exception as error:  # whatever a package's own check raises
            raise OptionsError(f"{where}: {error}") from error
    return made


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


def _say_statistics(options: Options, data: Datasets) -> None:
    if options.print_stats is False:
        return
    from ase.data import chemical_symbols

    elements = " ".join(chemical_symbols[z] for z in data.info.atomic_types)
    sets = {"training": data.train, "validation": data.validation, "test": data.test}
    sizes = ", ".join(f"{len(s)} {n}" for n, s in sets.items() if s is not None)
    log.info("structures: %s; elements: %s", sizes, elements)
    for name, target in data.info.targets.items():
        label = data.train.labels[name]
        if target.input:
            continue
        if target.classes:
            counts = (
                label.values.sum(0) if label.mask is None else (label.values * label.mask).sum(0)
            )
            if target.kind == "binary":
                rows = len(label.values) if label.mask is None else label.mask.sum(0)
                said = f"{counts.sum():.6g} of {torch.as_tensor(rows).sum():.6g} are {target.classes[1]}"
            else:
                parts = zip(target.classes, counts.tolist(), strict=True)
                said = ", ".join(f"{c} {n:.6g}" for c, n in parts if n)
            log.info("target '%s': %s", name, said)
            continue
        values = label.values if label.mask is None else label.values[label.mask]
        spread = float(values.std()) if values.numel() > 1 else 0.0
        also = {"forces": "forces", "strain": "stress"}
        with_ = ", ".join(also[g] for g in target.gradients)
        log.info(
            "target '%s'%s: mean %.6g, standard deviation %.4g%s",
            name,
            f" with {with_}" if with_ else "",
            float(values.mean()),
            spread,
            f" {target.unit}" if target.unit else "",
        )


def _checkpoint_to_restart(
    restart: str | Path | None, completed: dict[str, Any], architecture: Architecture
) -> tuple[dict[str, Any] | None, str]:
    if restart is None:
        return None, ""
    if str(restart) == "auto":
        found = newest_checkpoint(OUTPUTS, completed)
        if found is None:
            log.info("no checkpoint of these options below '%s': starting from scratch", OUTPUTS)
            return None, ""
        path, checkpoint = found
    else:
        path = Path(restart)
        checkpoint = load_checkpoint(path)
    name = checkpoint["architecture"]["name"]
    if not architecture.answers_to(name):
        raise CheckpointError(
            f"'{path}' holds a model of '{name}', but the options train '{architecture.info.name}'"
        )
    return architecture.upgrade_checkpoint(checkpoint), str(path)


def _write_splits(data: Datasets, directory: Path) -> None:
    """``indices/<set>_<section>.txt``: the frames of each training section that went to a set."""
    folder = directory / "indices"
    folder.mkdir()
    for name, sections in data.splits.items():
        for k, frames in enumerate(sections):
            if frames is not None:
                text = "\n".join(map(str, frames)) + "\n"
                (folder / f"{name}_{k}.txt").write_text(text, encoding="utf-8")


def _remove_if_empty(directory: Path) -> None:
    """Take away the directory of a run that failed before it made anything but a log."""
    try:
        names = {p.name for p in directory.iterdir()}
        if names <= {"train.log"}:
            for name in names:
                (directory / name).unlink()
            directory.rmdir()
    except OSError:
        pass  # the error that brought us here matters more


def _fetched(checkpoint: str | Path) -> tuple[Path, Path | None]:
    """A local path for a checkpoint, downloaded first if it is an https address."""
    address = str(checkpoint)
    if not address.startswith("https://"):
        if "://" in address:
            raise CheckpointError(f"'{address}': only https addresses are fetched")
        return Path(checkpoint), None
    with tempfile.NamedTemporaryFile(suffix=".ckpt", delete=False) as file:
        temporary = Path(file.name)
        try:
            with urllib.request.urlopen(address, timeout=60) as response:
                file.write(response.read())
        except OSError as error:
            temporary.unlink()
            raise CheckpointError(f"cannot fetch '{address}': {error}") from error
    return temporary, temporary


__all__ = [
    "AtomtrainError",
    "TrainingResult",
    "evaluate",
    "export",
    "load",
    "show",
    "train",
]
