"""Opening the trained model that an architecture builds on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from atomtrain.errors import AtomtrainError, CheckpointError, DataError, OptionsError
from atomtrain.model.backbone import Backbone
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.restore import restore

if TYPE_CHECKING:
    from atomtrain.contract import BuildContext
    from atomtrain.targets import DatasetInfo


def open_backbone(
    context: BuildContext, dataset_info: DatasetInfo, name: str = "backbone"
) -> Backbone:
    """The frozen model inside an architecture, to be called in ``build_model``.

    A new training takes the checkpoint that the trainer's hyper ``name`` is the path of. Whatever
    is loaded (restart, fine-tuning, export) has it inside its own checkpoint.

    Raises OptionsError where the hyper is not set, CheckpointError or PluginError where the
    checkpoint or its architecture is not there, DataError for elements it does not know.
    """
    checkpoint, where = _checkpoint(context, name)
    try:
        architecture, predictor = restore(_in_float64(checkpoint), "export")
    except AtomtrainError as error:
        raise type(error)(f"{where}: {error}") from error
    known = predictor.dataset_info
    unknown = sorted(set(dataset_info.atomic_types) - set(known.atomic_types))
    if unknown:
        raise DataError(
            f"{where}: the model was trained for the atomic numbers {list(known.atomic_types)}, "
            f"the data also have {unknown}; take another one"
        )
    if known.length_unit != dataset_info.length_unit:
        raise DataError(
            f"{where}: the model was trained in '{known.length_unit}', the data are in "
            f"'{dataset_info.length_unit}': give both the same length_unit"
        )
    upgraded = architecture.upgrade_checkpoint(checkpoint)
    return Backbone(predictor.model, {**upgraded, "trainer": None}, name)


def _in_float64(value: Any) -> Any:
    """A checkpoint with its weights in float64.

    A model takes the precision of its weights, and what it computes when it is built (tables of a
    basis) would be rounded to that of the backbone before it gets that of the surrounding model.
    """
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _in_float64(item) for key, item in value.items()}
    return value


def _checkpoint(context: BuildContext, name: str) -> tuple[dict[str, Any], str]:
    """The backbone's checkpoint, and where it was found (for messages)."""
    if context.checkpoint is not None:
        embedded = context.checkpoint.get("embedded", {}).get(name)
        if embedded is None:
            raise CheckpointError(f"the checkpoint has no model '{name}' inside it")
        return embedded, f"the model '{name}' inside the checkpoint"
    where = f"architecture.training.{name}"
    path = getattr(context.trainer_hypers, name, None)
    if not path:
        raise OptionsError(f"{where}: give the path of a trained model's checkpoint")
    try:
        return load_checkpoint(path), f"{where}: '{path}'"
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
