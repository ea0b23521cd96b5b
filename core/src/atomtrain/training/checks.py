"""What must be right before any data are read: hypers, targets, checkpoints, observers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomtrain.contract import Architecture, component
from atomtrain.errors import (
    AtomtrainError,
    CheckpointError,
    OptionsError,
    PluginError,
    TargetError,
)
from atomtrain.model.heads import split_targets
from atomtrain.options import Options, TrainerHypers, target_info, validate_hypers
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.training.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.training.observers import Observer


def checked_hypers(architecture: Architecture, options: Options) -> tuple[BaseModel, TrainerHypers]:
    """The hypers of model and training, validated. Raises OptionsError with file, line and key."""
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


def check_targets(architecture: Architecture, options: Options, hypers: TrainerHypers) -> None:
    """Raise OptionsError or TargetError unless architecture and hypers suit the targets."""
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


def check_checkpoints(options: Options, hypers: TrainerHypers) -> None:
    """Raise CheckpointError unless the checkpoints that hypers name can be read."""
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


def make_observers(options: Options) -> list[Observer]:
    """The loggers and callbacks of packages that the options name.

    Raises PluginError for one that is not installed or broken, OptionsError for wrong arguments.
    """
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
