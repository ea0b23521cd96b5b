"""Checkpoint files: whole or absent, readable without running anybody's code.

A checkpoint is a dict of tensors, numbers, strings, lists and dicts::

    format, format_version, atomtrain_version
    architecture   {name, distribution, version, model_version, trainer_version}
    options        the completed options of the run
    hypers         {model, trainer}
    dataset_info   DatasetInfo.to_dict()
    splits, fingerprint
    model          {last, best, average}: state dicts of the architecture's module (best, average
                   may be None)
    core           {version, affine}: compositions and scales
    trainer        optimiser, step, epoch, random state, best metric ... (None: nothing to go on)
    embedded       {name: checkpoint}: trained models inside the model, each by its own checkpoint
    metrics, metadata

It is written to a temporary file, flushed, read back, and renamed over its final name: a kill at
any moment leaves the previous file whole.
"""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomtrain._version import __version__
from atomtrain.errors import CheckpointError, first_line
from atomtrain.files import archive_kind, metatrain_checkpoint, replacing
from atomtrain.targets import DatasetInfo

FORMAT = "atomtrain checkpoint"
FORMAT_VERSION = 1


def checkpoint_header(
    *,
    architecture: dict[str, Any],
    options: dict[str, Any],
    model_hypers: dict[str, Any],
    dataset_info: DatasetInfo,
    splits: dict[str, Any],
    fingerprint: str,
) -> dict[str, Any]:
    """What every checkpoint of a run says besides its state (see the text of this module).

    ``options`` are the completed ones, ``architecture`` is its identity.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "atomtrain_version": __version__,
        "architecture": architecture,
        "options": options,
        "hypers": {"model": model_hypers, "trainer": options["architecture"]["training"]},
        "dataset_info": dataset_info.to_dict(),
        "splits": splits,
        "fingerprint": fingerprint,
        "metadata": {},
    }


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write atomically. Raises OutputError where the file cannot be written."""
    buffer = io.BytesIO()
    torch.save(_detached(checkpoint), buffer)
    data = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(data)
        load_checkpoint(temporary)  # what cannot be read back must not replace what can


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read and check a checkpoint onto the CPU; never runs code from the file.

    Raises CheckpointError for a missing or damaged file, for one that is no checkpoint of ours, of
    a newer format, or that holds anything but plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint '{path}'")
    kind = archive_kind(path)
    if kind == "model":
        raise CheckpointError(
            f"'{path}' is an exported model, not a checkpoint; training and export need the "
            "'.ckpt' file written beside it"
        )
    if not kind and not _old_pickle(path):
        raise CheckpointError(
            f"'{path}' is not a checkpoint (or was cut off while it was copied): expected a file "
            "written by 'atomtrain train'"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        remedy = metatrain_checkpoint(path)
        if remedy:
            raise CheckpointError(f"'{path}' {remedy}") from None
        # torch's own message tells people to switch the protection off
        raise CheckpointError(
            f"'{path}' holds something other than tensors and plain data, which could run code "
            "when loaded; it was refused and nothing of it was run. Checkpoints written by "
            "atomtrain never do: get the file from a source you trust"
        ) from None
    except (RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(
            f"'{path}' is damaged and cannot be read ({first_line(error)})"
        ) from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise CheckpointError(
            f"'{path}' was saved with torch but is no atomtrain checkpoint (a checkpoint of "
            "another program, or a bare state dict?)"
        )
    version = checkpoint.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"'{path}' has checkpoint format {version}, written by atomtrain "
            f"{checkpoint.get('atomtrain_version', '?')}; this version reads formats up to "
            f"{FORMAT_VERSION}: install a newer atomtrain"
        )
    return checkpoint


class Checkpoints:
    """Checkpoint files that options name, each opened once."""

    def __init__(self) -> None:
        self._opened: dict[str, dict[str, Any]] = {}

    def open(self, path: str) -> dict[str, Any]:
        """See :func:`load_checkpoint`."""
        if path not in self._opened:
            self._opened[path] = load_checkpoint(path)
        return self._opened[path]

    def forget(self) -> None:
        """Let go of all: their weights are as large as models are."""
        self._opened.clear()


def _old_pickle(path: Path) -> bool:
    """Whether it may be a file from before torch's zip format; torch refuses it safely if not."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def _detached(value: Any) -> Any:
    """Copy with every tensor on the CPU and owning its storage (views would drag theirs along)."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_detached(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"a checkpoint holds tensors and plain data only, not {type(value).__module__}."
        f"{type(value).__qualname__}"
    )


def not_plain(value: Any, path: str) -> str:
    """Where something is that a checkpoint cannot have, and what; empty where all can be saved."""
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) not in (bool, int, float, str):
                return f"a key of {path} is {type(key).__qualname__}"
            found = not_plain(item, f"{path}.{key}")
            if found:
                return found
        return ""
    if isinstance(value, (list, tuple)):
        inner = (not_plain(item, f"{path}[{k}]") for k, item in enumerate(value))
        return next(filter(None, inner), "")
    if value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str):
        return ""
    return f"{path} is {type(value).__module__}.{type(value).__qualname__}"
