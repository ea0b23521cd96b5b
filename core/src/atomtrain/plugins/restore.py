"""From a checkpoint back to a predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from atomtrain.contract import BuildContext
from atomtrain.errors import CheckpointError
from atomtrain.model.features import check_declared
from atomtrain.model.heads import saved_state, split_targets, with_heads
from atomtrain.model.predictor import Predictor
from atomtrain.plugins.architecture import Architecture, architecture_of
from atomtrain.targets import DatasetInfo

if TYPE_CHECKING:
    from pydantic import BaseModel

    from atomtrain.contract import Purpose
    from atomtrain.model.base import Model


@dataclass(frozen=True)
class Restored:
    """A model that was built from a checkpoint.

    ``checkpoint`` is the one given, brought up to the installed versions: whatever is said or written of the
    model from now on (its hypers, above all) is to be taken from it.
    """

    architecture: Architecture
    predictor: Predictor
    checkpoint: dict[str, Any]


def build_model(
    architecture: Architecture,
    hypers: BaseModel,
    dataset_info: DatasetInfo,
    context: BuildContext,
) -> Model:
    """A fresh model: the architecture's for what it fits itself, heads of the core for the rest.

    Raises TargetError for targets neither can predict, PluginError for features that no kind declares.
    """
    info = architecture.info
    own, headed = split_targets(dataset_info, info.target_kinds, info.name)
    context = replace(context, restore=restore)
    model = architecture.build_model(hypers, own, context)
    check_declared(model, info.target_kinds, info.name)
    return with_heads(model, headed)


def restore(
    checkpoint: dict[str, Any], purpose: Purpose, trainer_hypers: BaseModel | None = None
) -> Restored:
    """Build the architecture's model from a checkpoint and load its weights, compositions and scales.

    ``purpose`` ``restart`` takes the last weights, ``finetune`` and ``export`` the best ones. The
    checkpoint is upgraded to the installed version first. Raises CheckpointError or PluginError.
    """
    architecture = architecture_of(checkpoint)
    checkpoint = architecture.todays(checkpoint)
    dataset_info = DatasetInfo.from_dict(checkpoint["dataset_info"])
    context = BuildContext(purpose, trainer_hypers, checkpoint)
    model = build_model(architecture, architecture.model_hypers(checkpoint), dataset_info, context)
    predictor = Predictor(model, dataset_info)
    which = "last"
    if purpose != "restart" and checkpoint["model"].get("best") is not None:
        which = "best"
    _load(model, saved_state(checkpoint, which, model))
    _load_affine(predictor, checkpoint["core"]["affine"])
    return Restored(architecture, predictor, checkpoint)


def _load(model: Model, state: Mapping[str, Tensor]) -> None:
    # the model takes the precision of its weights, so that nothing is rounded on the way in
    for tensor in state.values():
        if tensor.is_floating_point():
            model.to(tensor.dtype)
            break
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            "the weights in the checkpoint do not fit the model the installed plugin builds "
            f"({str(error).splitlines()[-1].strip()}); install the plugin version that wrote it"
        ) from error


def _load_affine(predictor: Predictor, state: Mapping[str, Tensor]) -> None:
    own = predictor.state_dict()
    for name, value in state.items():
        if name not in own or own[name].shape != value.shape:
            raise CheckpointError(
                "the checkpoint's compositions and scales do not fit its own data set "
                f"information ({name})"
            )
        own[name].copy_(value)
