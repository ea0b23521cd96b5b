"""What a training is asked for, checked as far as that is possible before data are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from atomtrain.contract import EvaluationSpec, component, components
from atomtrain.contract.environments import check_environment
from atomtrain.errors import (
    AtomtrainError,
    CheckpointError,
    OptionsError,
    PluginError,
    TargetError,
)
from atomtrain.model.heads import split_targets
from atomtrain.options import (
    BaseTrainerHypers,
    DatasetSection,
    Options,
    check_units,
    complete,
    load_options,
    target_info,
    validate,
)
from atomtrain.plugins import Architecture, architecture_of, open_architecture
from atomtrain.runs.evaluations import Evaluation
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.training.checkpoint import Checkpoints
from atomtrain.training.observers import Observer


@dataclass(frozen=True)
class Plan:
    """The options of a training with the architecture they name, its hypers, and what they name beside.

    ``checkpoints`` are those that hypers name (:meth:`open_checkpoints`); ``observers`` the loggers and
    callbacks of packages, ``evaluations`` what they do with the trained model, by name and in order.
    """

    options: Options
    architecture: Architecture
    model_hypers: BaseModel
    hypers: BaseTrainerHypers
    checkpoints: Checkpoints
    observers: list[Observer]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)

    @cached_property
    def completed(self) -> dict[str, Any]:
        """The options with every default filled in, as plain data."""
        return complete(self.options, self.model_hypers, self.hypers)

    def open_checkpoints(self) -> None:
        """Open the checkpoints that hypers name, each once.

        Only a training that begins needs them: one that goes on has all of it in its own checkpoint. With file, line
        and key of the options it raises CheckpointError for one that cannot be read, PluginError (OtherEnvironment)
        for one whose architecture is not here.
        """
        for path, file in self.hypers.named_checkpoints().items():
            try:
                architecture_of(self.checkpoints.open(file))
            except (CheckpointError, PluginError) as error:
                where = self.options.source.where(("architecture", "training", *path))
                raise error.saying(f"{where}: {error}") from error


def plan(options: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Plan:
    """Read options (a file, or a dictionary of the same keys) and check everything but what other files hold.

    Raises OptionsError with file, line and key, PluginError (OtherEnvironment for an architecture of another
    environment) or TargetError.
    """
    loaded = load_options(options, overrides)
    architecture = _architecture(loaded)
    model = validate(
        architecture.model_hypers_class(),
        loaded.architecture.model,
        ("architecture", "model"),
        loaded.source,
    )
    hypers = validate(
        architecture.trainer_hypers_class(),
        loaded.architecture.training,
        ("architecture", "training"),
        loaded.source,
    )
    if not isinstance(hypers, BaseTrainerHypers):
        raise PluginError(
            f"architecture '{architecture.info.name}' ({architecture.installed.origin}): trainer_hypers "
            f"gives {type(hypers).__name__}, which is no subclass of atomtrain.options.BaseTrainerHypers"
        )
    check_units([s for s in loaded.training_set if isinstance(s, DatasetSection)])
    _check_targets(architecture, loaded, hypers)
    observers = _observers(loaded)
    evaluations = _evaluations(loaded)
    return Plan(loaded, architecture, model, hypers, Checkpoints(), observers, evaluations)


def _architecture(options: Options) -> Architecture:
    """Raises PluginError for one that is not here, OtherEnvironment where it is known to be elsewhere."""
    name, environment = options.architecture.name, options.architecture.environment
    if environment is not None:
        try:
            check_environment(name, environment)
        except PluginError as error:
            where = options.source.where(("architecture", "environment"))
            raise error.saying(f"{where}: {error}") from error
    return open_architecture(name)


def _check_targets(architecture: Architecture, options: Options, hypers: BaseTrainerHypers) -> None:
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
        where = options.source.where(("architecture", "training", *path))
        raise OptionsError(f"{where}: {message}")


def _made(
    hook: str, named: Mapping[str, Any], path: tuple[str, ...], options: Options
) -> list[Any]:
    """What packages offer to ``hook``, made with the arguments that the options have at ``path``.

    Raises PluginError for one that is not installed or broken, OptionsError for wrong arguments.
    """
    made: list[Any] = []
    for name, arguments in named.items():
        where = options.source.where((*path, name))
        try:
            factory = component(hook, name).load()
        except AtomtrainError as error:
            raise PluginError(f"{where}: {error}") from error
        except Exception as error:
            raise PluginError(
                f"{where}: '{name}' cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        try:
            made.append(factory(**arguments))
        except Exception as error:  # whatever a package's own check raises
            raise OptionsError(f"{where}: {error}") from error
    return made


def _observers(options: Options) -> list[Observer]:
    """The loggers and callbacks of packages that the options name."""
    return _made("register_observers", options.observers, ("observers",), options)


def _evaluations(options: Options) -> dict[str, Evaluation]:
    """Evaluations of packages: those that the options name, then those that are always made."""
    if options.final_eval is False:
        return {}
    asked = {} if options.final_eval is True else options.final_eval
    always = always_made()
    # those that are always made come last: they look at what the others found
    order = [*(name for name in asked if name not in always), *always]
    given = {name: asked.get(name) for name in order}
    wanted = {n: g if isinstance(g, dict) else {} for n, g in given.items() if g is not False}
    made = dict(
        zip(wanted, _made("register_evaluations", wanted, ("final_eval",), options), strict=True)
    )
    for name, evaluation in made.items():
        try:
            getattr(evaluation, "check", lambda _: None)(options)
        except Exception as error:  # whatever a package's own check raises
            raise OptionsError(f"{options.source.where(('final_eval', name))}: {error}") from error
    return made


def always_made() -> list[str]:
    """Evaluations of packages that look at every training, by name."""
    offered = components("register_evaluations")
    return sorted(n for n, s in offered.items() if isinstance(s, EvaluationSpec) and s.always)
