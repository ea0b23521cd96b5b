"""Every hook of atomtrain, on one page.

A plugin is a module. It implements a hook by defining a function of the same name under the
``@hookimpl`` marker; it may leave out arguments it does not need::

    from atomtrain.contract import ArchitectureInfo, hookimpl

    @hookimpl
    def describe_architecture():
        return ArchitectureInfo(
            name="my-arch", summary="what it is", model_hypers=..., trainer_hypers=...
        )

The module is found through an entry point whose name is the architecture's name::

    [project.entry-points."atomtrain.architectures"]
    my-arch = "my_package.plugin"

It must import without torch: put ``import torch`` inside the functions that need it.
Architecture hooks are asked of the chosen plugin alone; where it does not answer, the core's
default does (:mod:`atomtrain.plugins.defaults`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.contract.architecture import ArchitectureInfo, BuildContext
    from atomtrain.contract.components import ComponentSpec
    from atomtrain.model.base import Model
    from atomtrain.model.predictor import Predictor
    from atomtrain.targets import DatasetInfo
    from atomtrain.training.run import TrainingOutcome, TrainingRun

PROJECT = "atomtrain"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class ArchitectureHooks:
    """Hooks of a package in the entry point group ``atomtrain.architectures``."""

    @hookspec(firstresult=True)
    def describe_architecture(self) -> ArchitectureInfo:
        """Say what the architecture is. Required; must not import torch."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def build_model(
        self, hypers: BaseModel, dataset_info: DatasetInfo, context: BuildContext
    ) -> Model:
        """Build the torch module. Required.

        ``hypers`` is the validated instance of the architecture's ``ModelHypers``. On loading
        (``context.purpose`` restart, finetune or export) the core copies the weights in afterwards.
        What the model takes beside atoms (a charge) it says in :meth:`atomtrain.model.Model.extra_inputs`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def train_model(self, model: Model, run: TrainingRun) -> TrainingOutcome:
        """Train ``model`` on what ``run`` holds. Default: the core's engine."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def upgrade_checkpoint(
        self, checkpoint: dict[str, Any], part: str, from_version: int
    ) -> dict[str, Any]:
        """Take ``part`` (``model`` or ``trainer``) of a checkpoint one version further.

        Returns the changed checkpoint; the core calls once per step and keeps count.
        Default: an error that names the missing step.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def export_model(self, predictor: Predictor, metadata: dict[str, Any]) -> Any:
        """Turn a trained predictor into a ``metatomic.torch.AtomisticModel``.

        Default: the core's wrapper, with capabilities taken from the predictor.
        """
        raise NotImplementedError


class ComponentHooks:
    """Hooks of a package in the group ``atomtrain.components``; architectures may answer them too.

    Each yields :class:`ComponentSpec`, whose code is imported only when the options name it.
    Commands need no hook: an entry point of the group ``atomtrain.commands`` names a typer app, and
    the module is imported when the command is called.
    """

    @hookspec
    def register_dataset_readers(self) -> Iterable[ComponentSpec]:
        """Offer readers of further data formats (``reader: name`` in the options).

        ``load()`` gives a function ``(path, where)`` that returns a list of
        :class:`atomtrain.data.Frame` and raises DataError, its message beginning with
        ``where``, for a file it cannot read. With a third parameter ``format`` it is given what the
        options say of it; a list that is :class:`atomtrain.data.readers.Frames` says how it was read, and
        :class:`atomtrain.data.readers.LazyFrames` read frames when they are asked for. A
        :class:`~atomtrain.contract.ReaderSpec` recognises its files, so that the options need not name it.
        """
        raise NotImplementedError

    @hookspec
    def register_tasks(self) -> Iterable[ComponentSpec]:
        """Offer further kinds of targets (``type:`` of a target in the options).

        ``load()`` gives a subclass of :class:`atomtrain.tasks.Task` whose ``kind`` is the name.
        """
        raise NotImplementedError

    @hookspec
    def register_losses(self) -> Iterable[ComponentSpec]:
        """Offer further losses (``loss: {type: name, ...}`` in the options).

        ``load()`` gives a function (or class) whose keyword arguments are those of the options; it
        raises for values it cannot take, and returns an :data:`atomtrain.losses.Loss`.
        """
        raise NotImplementedError

    @hookspec
    def register_observers(self) -> Iterable[ComponentSpec]:
        """Offer loggers and callbacks that watch a training (``observers:`` in the options).

        ``load()`` gives a function (or class) whose keyword arguments are those of the options; it
        raises for values it cannot take, touches nothing outside, and returns an
        :class:`atomtrain.training.observers.Observer`. Every process makes one, only the main
        process's hears of the training. One that fails then is disabled, once, loudly.
        """
        raise NotImplementedError

    @hookspec
    def register_evaluations(self) -> Iterable[ComponentSpec]:
        """Offer further looks at a training that is over (``final_eval:`` in the options).

        ``load()`` gives a function (or class) whose keyword arguments are those of the options; it raises for
        values it cannot take before anything is trained, and returns a function that takes an
        :class:`atomtrain.runs.Finished` and returns :class:`atomtrain.runs.Findings`. The main process calls it when
        model and checkpoint are in their places; one that fails is a warning. Has it a method ``check``, that is called
        with the validated options before the training, and raises where these cannot be looked at. An
        :class:`~atomtrain.contract.EvaluationSpec` may ask to be called after every training.
        """
        raise NotImplementedError
