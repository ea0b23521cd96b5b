"""Open one architecture: a pluggy manager with the hook specs, the core's defaults, that plugin.

Nothing is broadcast to all plugins, so every failure stays in its own room: what goes wrong here
names the distribution that did it and what to do.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from atomtrain import __version__
from atomtrain.contract import catalog, defaults
from atomtrain.contract.architecture import ArchitectureInfo, BuildContext
from atomtrain.contract.components import ComponentSpec
from atomtrain.contract.hookspecs import PROJECT, ArchitectureHooks, ComponentHooks
from atomtrain.errors import AtomtrainError, CheckpointError, PluginError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.model.base import Model
    from atomtrain.model.predictor import Predictor
    from atomtrain.targets import DatasetInfo
    from atomtrain.training.run import TrainingOutcome, TrainingRun

T = TypeVar("T")


def open_architecture(name: str) -> Architecture:
    """The installed architecture of this name or alias.

    Raises PluginError if there is none, or two, or if its plugin is broken.
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
    raise catalog.unknown_architecture(name, (a.name for a in catalog.architectures()))


class Architecture:
    """One architecture's hooks as typed methods. Everything that fails is chained and attributed."""

    def __init__(self, installed: catalog.Installed) -> None:
        self.installed = installed
        module = _import(installed)
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(ArchitectureHooks)
        manager.add_hookspecs(ComponentHooks)
        manager.register(defaults, "atomtrain defaults")
        try:
            manager.register(module, installed.name)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(
                f"{self._who} implements a hook that does not exist, or with arguments it does "
                f"not have: {error}. Compare it with atomtrain.contract.hookspecs"
            ) from error
        self._hooks = manager.hook
        # pluggy takes an answer of None for no answer and asks the next: an upgrade that forgets
        # its return must not fall through to the default
        own = [i for i in self._hooks.upgrade_checkpoint.get_hookimpls() if i.plugin is module]
        self._upgrade = (
            manager.subset_hook_caller("upgrade_checkpoint", [defaults])
            if own
            else self._hooks.upgrade_checkpoint
        )
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
        if not self._hooks.build_model.get_hookimpls():
            raise self._unanswered("build_model")  # now, not when somebody's data have been read
        self.info: ArchitectureInfo = info

    @property
    def _who(self) -> str:
        return f"architecture '{self.installed.name}' ({self.installed.origin})"

    def answers_to(self, name: str) -> bool:
        """Whether this is the architecture's name, or one it had before."""
        known = (self.info.name, *self.info.aliases)
        return catalog.normalise(name) in map(catalog.normalise, known)

    def identity(self) -> dict[str, Any]:
        """What a checkpoint says of its architecture."""
        return {
            "name": self.info.name,
            "distribution": self.installed.distribution,
            "version": self.installed.version,
            "model_version": self.info.model_version,
            "trainer_version": self.info.trainer_version,
        }

    def model_hypers_class(self) -> type[BaseModel]:
        """The pydantic class of ``architecture.model``."""
        return self._call("model_hypers", self.info.model_hypers)

    def trainer_hypers_class(self) -> type[BaseModel]:
        """The pydantic class of ``architecture.training``."""
        return self._call("trainer_hypers", self.info.trainer_hypers)

    def build_model(
        self, hypers: BaseModel, dataset_info: DatasetInfo, context: BuildContext
    ) -> Model:
        """See :meth:`.hookspecs.ArchitectureHooks.build_model`."""
        model: Model = self._ask(
            "build_model",
            lambda: self._hooks.build_model(
                hypers=hypers, dataset_info=dataset_info, context=context
            ),
        )
        return model

    def train_model(self, model: Model, run: TrainingRun) -> TrainingOutcome:
        """See :meth:`.hookspecs.ArchitectureHooks.train_model`. Errors pass unchanged."""
        outcome: TrainingOutcome = self._hooks.train_model(model=model, run=run)
        if outcome is None:
            raise PluginError(f"{self._who}: train_model returned nothing")
        return outcome

    def export_model(self, predictor: Predictor, metadata: dict[str, Any]) -> Any:
        """See :meth:`.hookspecs.ArchitectureHooks.export_model`."""
        return self._ask(
            "export_model",
            lambda: self._hooks.export_model(predictor=predictor, metadata=metadata),
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
                    upgraded = self._upgrade(checkpoint=before, part=part, from_version=step)
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

    def _call(self, hook: str, function: Callable[[], T]) -> T:
        try:
            return function()
        except AtomtrainError:
            raise  # already says what is wrong, in the author's words
        except Exception as error:
            raise PluginError(
                f"{self._who} failed in {hook}: {type(error).__name__}: {error}. Report it to the "
                f"authors, or try another version of {self.installed.distribution}"
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


def _import(installed: catalog.Installed) -> ModuleType:
    _check_core_version(installed)
    try:
        module = installed.entry_point.load()
    except Exception as error:
        raise PluginError(
            f"'{installed.name}' ({installed.origin}) is installed but cannot be imported: "
            f"{type(error).__name__}: {error}. Reinstall it ('pip install --force-reinstall "
            f"{installed.distribution}') or report it to its authors"
        ) from error
    if not isinstance(module, ModuleType):
        raise PluginError(
            f"'{installed.name}' ({installed.origin}): the entry point must name a module, "
            f"'{installed.value}' is a {type(module).__name__}"
        )
    return module


def _check_core_version(installed: catalog.Installed) -> None:
    """Refuse a distribution that says it needs another version of atomtrain, before it fails."""
    distribution = installed.entry_point.dist
    for line in (distribution.requires if distribution is not None else None) or ():
        if not line.lower().startswith("atomtrain"):
            continue
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # pip would not have installed it: its import will say more
        if requirement.name.lower() != "atomtrain":
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and not requirement.specifier.contains(__version__, prereleases=True):
            raise PluginError(
                f"'{installed.name}' ({installed.origin}) was made for atomtrain "
                f"{requirement.specifier}, but atomtrain {__version__} is installed; install "
                f"versions that fit: pip install -U atomtrain {installed.distribution}"
            )


def components(hook: str) -> dict[str, ComponentSpec]:
    """What all component packages offer to ``hook`` (``register_losses``, ...), by name.

    A package that fails is left out with a warning (an error under ATOMTRAIN_STRICT_PLUGINS=1).
    """
    found: dict[str, ComponentSpec] = {}
    for installed in catalog.installed(catalog.COMPONENTS) + catalog.architectures():
        try:
            manager = pluggy.PluginManager(PROJECT)
            manager.add_hookspecs(ArchitectureHooks)
            manager.add_hookspecs(ComponentHooks)
            manager.register(_import(installed), installed.name)
            manager.check_pending()
            # a generator raises only when it is consumed: do that inside the guard
            specs = [spec for answer in getattr(manager.hook, hook)() for spec in answer]
        except Exception as error:
            message = f"{installed.origin} is left out of {hook}: {error}"
            if os.environ.get("ATOMTRAIN_STRICT_PLUGINS") == "1":
                raise PluginError(message) from error
            warnings.warn(message, stacklevel=2)
            continue
        for spec in specs:
            if spec.name in found:
                raise PluginError(
                    f"'{spec.name}' of {hook} is offered twice, the second time by "
                    f"{installed.origin}; uninstall one of them"
                )
            found[spec.name] = spec
    return found
