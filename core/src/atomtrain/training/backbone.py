"""Opening the trained model that an architecture builds on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atomtrain.errors import (
    AtomtrainError,
    CheckpointError,
    DataError,
    DeviceError,
    OptionsError,
    TargetError,
)
from atomtrain.model.backbone import Backbone
from atomtrain.model.export import export_predictor, merge_metadata
from atomtrain.training.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomtrain.contract import BuildContext, Purpose
    from atomtrain.model import Predictor
    from atomtrain.targets import DatasetInfo


def check_limits(backbone: Backbone, device: torch.device, dtype: torch.dtype) -> None:
    """Raise DeviceError unless the model inside runs on the ``device``, and computes in the ``dtype``."""
    name = backbone.checkpoint["architecture"]["name"]
    if device.type not in backbone.devices:
        raise DeviceError(
            f"device: '{device.type}' is none the backbone '{name}' runs on; it supports "
            f"{', '.join(backbone.devices)}"
        )
    short = str(dtype).removeprefix("torch.")
    if short not in backbone.dtypes:
        bits = sorted({"float64": 64, "float32": 32}.get(d, 16) for d in backbone.dtypes)
        raise DeviceError(
            f"base_precision: the backbone '{name}' does not compute in {short}; set it to "
            f"{' or '.join(map(str, bits))}"
        )


def export_around(
    backbone: Backbone, predictor: Predictor, metadata: dict[str, Any], devices: Sequence[str]
) -> Any:
    """The core's wrapper with a model inside: on those of the ``devices`` that it runs on, its references named."""
    told = {key: value for key, value in backbone.references.items() if value}
    metadata = merge_metadata({"references": told}, metadata)
    both = [device for device in devices if device in backbone.devices]
    return export_predictor(predictor, metadata, devices=both)


def open_backbone(
    context: BuildContext,
    dataset_info: DatasetInfo,
    name: str = "backbone",
    *,
    hyper: str | None = None,
    features: bool = True,
    trainable: bool = False,
) -> Backbone:
    """The frozen model inside an architecture, to be called in ``build_model``.

    A new training takes the checkpoint that the trainer's hyper ``name`` (or ``hyper``) is the path
    of. Whatever is loaded (restart, fine-tuning, export) has it inside its own checkpoint. It can be
    unfrozen in this training if it is ``trainable``. ``features``: whether it is to be asked for the features of atoms.

    Raises OptionsError where the hyper is not set, CheckpointError or PluginError where the
    checkpoint or its architecture is not there, DataError for elements it does not know.
    """
    checkpoint, where = _checkpoint(context, name, hyper or name)
    # the last weights go on where the surrounding model's do; else the best are taken
    restarts = context.checkpoint is not None and context.purpose == "restart"
    assert context.restore is not None, "the core builds models with one"
    try:
        purpose: Purpose = "restart" if restarts else "export"
        restored = context.restore(_in_float64(checkpoint), purpose)
    except AtomtrainError as error:
        raise error.saying(f"{where}: {error}") from error
    architecture, predictor = restored.architecture, restored.predictor
    known = predictor.dataset_info
    unknown = sorted(set(dataset_info.atomic_types) - set(known.atomic_types))
    if unknown:
        raise DataError(
            f"{where}: the model was trained for the atomic numbers {list(known.atomic_types)}, "
            f"the data also have {unknown}; take another one, or fine-tune that model on these elements "
            "(architecture.training.finetune) and begin with the result"
        )
    if known.length_unit != dataset_info.length_unit:
        raise DataError(
            f"{where}: the model was trained in '{known.length_unit}', the data are in "
            f"'{dataset_info.length_unit}': give both the same length_unit"
        )
    upgraded = {**architecture.upgrade_checkpoint(checkpoint), "trainer": None}
    try:
        return Backbone(
            predictor.model,
            upgraded if restarts else _chosen_alone(upgraded),
            name,
            features=features,
            trainable=trainable,
            devices=architecture.info.devices,
            dtypes=architecture.info.dtypes,
            references=architecture.info.references,
        )
    except TargetError as error:
        raise TargetError(f"{where} (architecture '{architecture.info.name}'): {error}") from error


def _chosen_alone(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with the weights that ``export`` takes as its only ones."""
    model, core = checkpoint["model"], checkpoint["core"]
    which = "last" if model.get("best") is None else "best"
    heads = {"last": (core.get("heads") or {}).get(which), "best": None}
    return {
        **checkpoint,
        "model": {"last": model[which], "best": None},
        "core": {**core, "heads": heads},
    }


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


def _checkpoint(context: BuildContext, name: str, hyper: str) -> tuple[dict[str, Any], str]:
    """The backbone's checkpoint, and where it was found (for messages)."""
    if context.checkpoint is not None:
        embedded = context.checkpoint.get("embedded", {}).get(name)
        if embedded is None:
            raise CheckpointError(f"the checkpoint has no model '{name}' inside it")
        return embedded, f"the model '{name}' inside the checkpoint"
    where = f"architecture.training.{hyper}"
    path = getattr(context.trainer_hypers, hyper, None)
    if not path:
        raise OptionsError(f"{where}: give the path of a trained model's checkpoint")
    try:
        return (context.open or load_checkpoint)(path), f"{where}: '{path}'"
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
