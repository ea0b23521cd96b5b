"""From a checkpoint back to a predictor, and from options and data to a fresh one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atomtrain.contract import BuildContext, open_architecture
from atomtrain.errors import CheckpointError
from atomtrain.model.heads import join_state, split_targets, with_heads
from atomtrain.model.predictor import Affine, Predictor
from atomtrain.targets import DatasetInfo
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.directory import newest_checkpoint

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.contract import Architecture, Purpose
    from atomtrain.model.base import Model


def build_model(
    architecture: Architecture,
    hypers: BaseModel,
    dataset_info: DatasetInfo,
    context: BuildContext,
) -> Model:
    """A fresh model: the architecture's for what it fits itself, heads of the core for the rest.

    Raises TargetError for targets neither can predict.
    """
    info = architecture.info
    own, headed = split_targets(dataset_info, info.target_kinds, info.name)
    return with_heads(architecture.build_model(hypers, own, context), headed)


log = logging.getLogger("atomtrain")


def restore(
    checkpoint: dict[str, Any], purpose: Purpose, trainer_hypers: BaseModel | None = None
) -> tuple[Architecture, Predictor]:
    """Build the architecture's model from a checkpoint and load its weights and baselines.

    ``purpose`` ``restart`` takes the last weights, ``finetune`` and ``export`` the best ones. The
    checkpoint is upgraded to the installed version first. Raises CheckpointError or PluginError.
    """
    identity = checkpoint["architecture"]
    origin = f"{identity.get('distribution') or ''} {identity.get('version') or ''}".strip()
    architecture = open_architecture(identity["name"], origin)
    checkpoint = architecture.upgrade_checkpoint(checkpoint)
    hypers = architecture.model_hypers_class().model_validate(checkpoint["hypers"]["model"])
    dataset_info = DatasetInfo.from_dict(checkpoint["dataset_info"])
    context = BuildContext(purpose, trainer_hypers, checkpoint)
    model = build_model(architecture, hypers, dataset_info, context)
    predictor = Predictor(model, dataset_info)
    which = "last"
    if purpose != "restart" and checkpoint["model"].get("best") is not None:
        which = "best"
    heads = checkpoint["core"].get("heads") or {}
    _load(model, join_state(checkpoint["model"][which], heads.get(which) or {}, model), "model")
    _load_affine(predictor, checkpoint["core"]["affine"])
    return architecture, predictor


def _load(module: torch.nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    # the model takes the precision of its weights, so that nothing is rounded on the way in
    for tensor in state.values():
        if tensor.is_floating_point():
            module.to(tensor.dtype)
            break
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in the checkpoint do not fit the {what} the installed plugin builds "
            f"({str(error).splitlines()[-1].strip()}); install the plugin version that wrote it"
        ) from error


def _load_affine(predictor: Predictor, state: Mapping[str, Tensor]) -> None:
    own = predictor.state_dict()
    for name, value in state.items():
        if name not in own or own[name].shape != value.shape:
            raise CheckpointError(
                f"the checkpoint's baselines do not fit its own data set information ({name})"
            )
        own[name].copy_(value)


def affine_of_checkpoint(
    checkpoint: dict[str, Any], target: str
) -> tuple[DatasetInfo, Affine | None]:
    """What a checkpoint is for, and a target's baseline and scale (None: it has no such target).

    Its architecture need not be installed.
    """
    info = DatasetInfo.from_dict(checkpoint["dataset_info"])
    if target not in info.targets:
        return info, None
    prefix = f"affine.{list(info.targets).index(target)}."
    affine = Affine(info.targets[target], len(info.atomic_types))
    saved: Mapping[str, Tensor] = checkpoint["core"]["affine"]
    own = {n.removeprefix(prefix): v for n, v in saved.items() if n.startswith(prefix)}
    affine.load_state_dict(own)
    return info, affine


def copy_affine(target: Predictor, source: Predictor, name: str) -> None:
    """Take over the baseline and scale of a target that both predictors have."""
    target.affine_of(name).load_state_dict(source.affine_of(name).state_dict())


def checkpoint_to_restart(
    restart: str | Path | None, completed: dict[str, Any], architecture: Architecture, base: Path
) -> tuple[dict[str, Any] | None, str]:
    """The checkpoint to go on from, brought up to date, and where it was; None if there is none.

    ``restart`` is its path, or ``auto`` for the newest below ``base`` of the ``completed`` options.
    """
    if restart is None:
        return None, ""
    if str(restart) == "auto":
        found = newest_checkpoint(base, completed)
        if found is None:
            log.info("no checkpoint of these options below '%s': starting from scratch", base)
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
