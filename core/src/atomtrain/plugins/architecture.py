"""Open one architecture: a pluggy manager with the hook specs, the core's defaults, that plugin.

Nothing is broadcast to all plugins, so every failure stays in its own room: what goes wrong here
names the distribution that did it and what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import pluggy

from atomtrain.contract import catalog, environments
from atomtrain.contract.architecture import ArchitectureInfo, BuildContext, Stage
from atomtrain.contract.hookspecs import PROJECT, ArchitectureHooks, ComponentHooks
from atomtrain.contract.loading import import_plugin, mistaken_hooks
from atomtrain.errors import (
    AtomtrainError,
    CheckpointError,
    PluginError,
    first_line,
    out_of_memory,
)
from atomtrain.plugins import defaults

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.model.base import Model
    from atomtrain.model.predictor import Predictor
    from atomtrain.targets import DatasetInfo
    from atomtrain.training.run import TrainingOutcome, TrainingRun

log = logging.getLogger("atomtrain")
T = TypeVar("T")


def open_architecture(name: str, origin: str = "") -> Architecture:
    """The installed architecture of this name or alias.

    ``origin`` is the distribution a checkpoint says it came from. Raises PluginError if there is no
    such architecture, or two, or if its plugin is broken; OtherEnvironment if a registered environment has it.
    """
    found = catalog.find_architecture(name)
    if found is not None:
        return Architecture(found)
    # Aliases are declared inside the (torch-free) plugin modules; only an unknown name gets here.
    for candidate in catalog.architectures():
        try:
            architecture = Architecture(candidate)
        except PluginError:
            continue
        if architecture.answers_to(name):
            return architecture
    environments.look_for(name)
    raise catalog.unknown_architecture(name, (a.name for a in catalog.architectures()), origin)


def architecture_of(file: Mapping[str, Any]) -> Architecture:
    """The installed architecture that made a checkpoint, or a model so described. As :func:`open_architecture`."""
    identity = file["architecture"]
    origin = f"{identity.get('distribution') or ''} {identity.get('version') or ''}".strip()
    return open_architecture(identity["name"], origin)


class Architecture:
    """One architecture's hooks as typed methods. Everything that fails is chained and attributed."""

    def __init__(self, installed: catalog.Installed) -> None:
        self.installed = installed
        module = import_plugin(installed)
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(ArchitectureHooks)
        manager.add_hookspecs(ComponentHooks)
        manager.register(defaults, "atomtrain defaults")
        mistakes = mistaken_hooks(module)
        if mistakes:
            raise PluginError(f"{self._who}: {'; '.join(mistakes)}")
        manager.register(module, installed.name)
        self._hooks = manager.hook
        # pluggy takes an answer of None for no answer and asks the next: a hook that forgets its return must not
        # fall through to the default, which would train a second time on top of a fit
        self._own = {
            name
            for name in vars(ArchitectureHooks)
            if not name.startswith("_")
            and any(i.plugin is module for i in getattr(self._hooks, name).get_hookimpls())
        }
        self._manager = manager
        info = self._ask("describe_architecture", lambda: self._hooks.describe_architecture())
        if not isinstance(info, ArchitectureInfo):
            raise PluginError(
                f"{self._who}: describe_architecture must return an ArchitectureInfo, not "
                f"{type(info).__name__}"
            )
        if catalog.normalise(info.name) != installed.name:
            raise PluginError(
                f"{self._who} is registered as '{installed.name}' but describes itself as "
                f"'{info.name}'; its author must give both the same name"
            )
        self._check_stage(info)
        if not self._hooks.build_model.get_hookimpls():
            raise self._unanswered("build_model")  # now, not when somebody's data have been read
        self.info: ArchitectureInfo = info

    @property
    def _who(self) -> str:
        return f"architecture '{self.installed.name}' ({self.installed.origin})"

    def _check_stage(self, info: ArchitectureInfo) -> None:
        stages = get_args(Stage)
        if info.stage not in stages:
            raise PluginError(
                f"{self._who} has stage '{info.stage}'; its author must give one of "
                f"{', '.join(stages)}"
            )
        if (info.stage == "deprecated") != (info.deprecation is not None):
            raise PluginError(
                f"{self._who} has stage '{info.stage}' and "
                f"{'no' if info.deprecation is None else 'a'} deprecation; its author must give "
                "both or neither"
            )

    @property
    def notice(self) -> str | None:
        """What a user of a deprecated architecture must be told; None for others."""
        gone = self.info.deprecation
        if gone is None:
            return None
        return (
            f"architecture '{self.info.name}' is deprecated since {gone.since} and goes away in "
            f"{gone.until}; use {gone.instead} instead"
        )

    def answers_to(self, name: str) -> bool:
        """Whether this is the architecture's name, or one it had before."""
        known = (self.info.name, *self.info.aliases)
        return catalog.normalise(name) in map(catalog.normalise, known)

    def overrides(self, hook: str) -> bool:
        """Whether the architecture answers this hook itself, in place of the default."""
        return hook in self._own

    def identity(self) -> dict[str, Any]:
        """What a checkpoint says of its architecture."""
        return self.installed.identity(self.info)

    def model_hypers_class(self) -> type[BaseModel]:
        """The pydantic class of ``architecture.model``."""
        return self._call("model_hypers", self.info.model_hypers)

    def trainer_hypers_class(self) -> type[BaseModel]:
        """The pydantic class of ``architecture.training``."""
        return self._call("trainer_hypers", self.info.trainer_hypers or defaults.trainer_hypers)

    def model_hypers(self, checkpoint: dict[str, Any]) -> BaseModel:
        """The model's hypers in an upgraded checkpoint.

        Raises CheckpointError, with what is wrong where, if they are not what the plugin takes today.
        """
        from pydantic import ValidationError

        cls = self.model_hypers_class()
        try:
            return cls.model_validate(checkpoint["hypers"]["model"])
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, ("model", *first["loc"])))
            raise CheckpointError(
                f"{self._who}: the hypers in the checkpoint are not those of the installed version "
                f"({where}: {first['msg']}); its author must translate them in upgrade_checkpoint"
            ) from error

    def build_model(
        self, hypers: BaseModel, dataset_info: DatasetInfo, context: BuildContext
    ) -> Model:
        """See :meth:`atomtrain.contract.hookspecs.ArchitectureHooks.build_model`."""
        model: Model = self._ask(
            "build_model",
            lambda: self._hooks.build_model(
                hypers=hypers, dataset_info=dataset_info, context=context
            ),
        )
        return model

    def train_model(self, model: Model, run: TrainingRun) -> TrainingOutcome:
        """See :meth:`atomtrain.contract.hookspecs.ArchitectureHooks.train_model`.

        Raises PluginError where it fails, or where what comes back is not what a training leaves behind.
        """
        from atomtrain.training.outcome import Entry, mistake_in  # torch

        entry = Entry.of(run)
        outcome: TrainingOutcome = self._call(
            "train_model", lambda: self._caller("train_model")(model=model, run=run)
        )
        if "train_model" in self._own:
            mistake = mistake_in(outcome, run, entry)
            if mistake:
                raise PluginError(f"{self._who}: {mistake}")
        return outcome

    def export_model(self, predictor: Predictor, metadata: dict[str, Any]) -> Any:
        """See :meth:`atomtrain.contract.hookspecs.ArchitectureHooks.export_model`."""
        return self._ask(
            "export_model",
            lambda: self._caller("export_model")(predictor=predictor, metadata=metadata),
        )

    def upgrade_checkpoint(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """The checkpoint at the installed versions of model and trainer, step by step.

        Raises CheckpointError for a checkpoint from the future or without a way up.
        """
        for part, current in (
            ("model", self.info.model_version),
            ("trainer", self.info.trainer_version),
        ):
            key = f"{part}_version"
            version = checkpoint["architecture"].get(key)
            if not isinstance(version, int) or version > current:
                raise CheckpointError(
                    f"the checkpoint holds version {version} of the {part} of "
                    f"'{self.info.name}', but the installed {self.installed.origin} knows versions "
                    f"up to {current}; install a newer {self.installed.distribution}"
                )
            while version < current:
                step, before = version, checkpoint
                try:
                    upgraded = self._caller("upgrade_checkpoint")(
                        checkpoint=before, part=part, from_version=step
                    )
                except AtomtrainError as error:
                    raise CheckpointError(
                        f"{self._who} cannot upgrade version {step} of the {part} (installed: "
                        f"{current}): {error}"
                    ) from error
                except Exception as error:
                    raise PluginError(
                        f"{self._who} failed upgrading version {step} of its {part} to "
                        f"{step + 1}: {type(error).__name__}: {error}"
                    ) from error
                if not isinstance(upgraded, dict):
                    raise PluginError(
                        f"{self._who}: upgrade_checkpoint returned nothing for the step from "
                        f"version {step} of the {part}"
                    )
                version += 1
                identity = {**upgraded["architecture"], key: version}
                checkpoint = {**upgraded, "architecture": identity}
        return checkpoint

    def todays(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """The upgraded checkpoint with hypers as they are written today.

        Those that a later version added have their defaults. Raises as :meth:`upgrade_checkpoint` and
        :meth:`model_hypers`.
        """
        upgraded = self.upgrade_checkpoint(checkpoint)
        model = self.model_hypers(upgraded).model_dump(mode="json")
        return {**upgraded, "hypers": {**upgraded["hypers"], "model": model}}

    def _caller(self, hook: str) -> Callable[..., Any]:
        """A hook that has a default: the architecture's own answer alone where it has one."""
        if hook in self._own:
            return self._manager.subset_hook_caller(hook, [defaults])
        caller: Callable[..., Any] = getattr(self._hooks, hook)
        return caller

    def _call(self, hook: str, function: Callable[[], T]) -> T:
        try:
            return function()
        except AtomtrainError:
            raise  # already says what is wrong, in the author's words
        except Exception as error:
            log.debug(f"{self._who}, {hook}:", exc_info=True)  # for the file of the log
            remedy = (
                f"Report it to the authors, or try another version of {self.installed.distribution}"
            )
            if out_of_memory(error):
                remedy = "There is not enough memory for it: try smaller hypers, batches or data"
            raise PluginError(
                f"{self._who} failed in {hook}: {first_line(error, typed=True)}. {remedy}; the traceback is in the "
                "log of the run, and shown by 'atomtrain --traceback'"
            ) from error

    def _ask(self, hook: str, function: Callable[[], Any]) -> Any:
        answer = self._call(hook, function)
        if answer is None:
            raise self._unanswered(hook)
        return answer

    def _unanswered(self, hook: str) -> PluginError:
        return PluginError(
            f"{self._who} does not answer the hook {hook}, which every architecture must; its "
            f"author has to add it to '{self.installed.value}'"
        )
