"""What an exported file says about itself: names, references, and how it came to be."""

from __future__ import annotations

import difflib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomtrain.errors import OptionsError
from atomtrain.targets import DatasetInfo

if TYPE_CHECKING:
    from atomtrain.contract.architecture import ArchitectureInfo

KEYS = ("name", "description", "authors", "references", "extra")
REFERENCES = ("implementation", "architecture", "model")


def read_metadata(path: Path | str) -> dict[str, Any]:
    """Read a user's metadata file (YAML with the keys :data:`KEYS`, all optional).

    Raises OptionsError for a missing file, unknown keys or values of the wrong form.
    """
    import yaml

    path = Path(path)
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise OptionsError(f"cannot read the metadata file '{path}': {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionsError(f"the metadata file '{path}' is no valid YAML: {error}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise OptionsError(
            f"the metadata file '{path}' must hold keys and values ({', '.join(KEYS)}), "
            f"not a {type(content).__name__}"
        )
    return merge_metadata({}, content, where=f"metadata file '{path}'")


def merge_metadata(
    base: Mapping[str, Any], user: Mapping[str, Any], *, where: str = "metadata"
) -> dict[str, Any]:
    """``base`` with the ``user``'s entries: texts replace, lists and dictionaries are joined."""
    for side in (base, user):
        _refuse_unknown(side, KEYS, where)
        _refuse_unknown(_mapping(side, "references", where), REFERENCES, f"{where}: references")
    references: dict[str, list[str]] = {}
    for key in REFERENCES:
        both = [
            *_strings(_mapping(base, "references", where), key, where),
            *_strings(_mapping(user, "references", where), key, where),
        ]
        if both:
            references[key] = list(dict.fromkeys(both))
    return {
        "name": _text(user, "name", where) or _text(base, "name", where),
        "description": _text(user, "description", where) or _text(base, "description", where),
        "authors": list(
            dict.fromkeys([*_strings(base, "authors", where), *_strings(user, "authors", where)])
        ),
        "references": references,
        "extra": {
            str(key): value if isinstance(value, str) else json.dumps(value)
            for side in (base, user)
            for key, value in _mapping(side, "extra", where).items()
        },
    }


def complete_metadata(metadata: Mapping[str, Any], dataset_info: DatasetInfo) -> dict[str, Any]:
    """Arguments for metatomic's ``ModelMetadata``; ``extra`` always tells version and data set."""
    merged = merge_metadata({}, metadata)
    merged["extra"].setdefault("atomtrain_version", _version())
    merged["extra"].setdefault("dataset_info", json.dumps(dataset_info.to_dict()))
    return merged


def describe_checkpoint(
    checkpoint: Mapping[str, Any],
    info: ArchitectureInfo | None = None,
    user: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The metadata of the model in ``checkpoint``, as ``export_model`` takes it.

    References of the architecture come from ``info``, the rest from the checkpoint's own
    ``metadata`` and the ``user``'s file, the later winning. ``extra`` holds, as JSON, what
    ``atomtrain show`` prints of an exported model.
    """
    architecture = dict(checkpoint.get("architecture") or {})
    trainer = checkpoint.get("trainer") or {}
    told = {
        "architecture": architecture or None,
        "hypers": checkpoint.get("hypers"),
        "dataset_info": checkpoint.get("dataset_info"),
        "metrics": checkpoint.get("metrics"),
        "epoch": checkpoint.get("epoch", trainer.get("epoch")),
        "best_epoch": checkpoint.get("best_epoch", trainer.get("best_epoch")),
        "atomtrain_version": checkpoint.get("atomtrain_version"),
    }
    references: dict[str, list[str]] = {}
    if info is not None:
        references = {key: list(value) for key, value in info.references.items() if value}
    base = {
        "name": f"{architecture['name']} model" if "name" in architecture else "",
        "description": "",
        "references": references,
        "extra": {key: value for key, value in told.items() if value is not None},
    }
    merged = merge_metadata(base, checkpoint.get("metadata") or {}, where="checkpoint metadata")
    return merge_metadata(merged, user or {})


def _version() -> str:
    try:
        return importlib.metadata.version("atomtrain")
    except importlib.metadata.PackageNotFoundError:  # run from a source folder
        return "unknown"


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise OptionsError(f"{where}: unknown key '{key}'; {hint}")


def _mapping(given: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise OptionsError(f"{where}: '{key}' must hold keys and values, not {value!r}")
    return value


def _strings(given: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = given.get(key) or []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(item, str) and item for item in value
    ):
        raise OptionsError(f"{where}: '{key}' must be a list of non-empty texts, not {value!r}")
    return list(value)


def _text(given: Mapping[str, Any], key: str, where: str) -> str:
    value = given.get(key) or ""
    if not isinstance(value, str):
        raise OptionsError(f"{where}: '{key}' must be a text, not {value!r}")
    return value
