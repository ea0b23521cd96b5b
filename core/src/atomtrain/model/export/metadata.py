"""What an exported file says about itself: names, references, and how it came to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from atomtrain._version import __version__
from atomtrain.sections import Section, Source, read_file, shown, validate
from atomtrain.targets import DatasetInfo

if TYPE_CHECKING:
    from atomtrain.contract.architecture import ArchitectureInfo


def _listed(value: Any) -> Any:
    """One text is a list of it; a program may give a tuple."""
    if isinstance(value, str):
        return [value] if value else []
    return list(value) if isinstance(value, tuple) else value


def _as_texts(value: Any) -> Any:
    """Entries for programs to read: what is no text is written as JSON."""
    if not isinstance(value, Mapping):
        return value
    return {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in value.items()}


Texts = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed)]


class References(Section):
    """What to cite, or where to look: addresses, each a text or a list of texts."""

    implementation: Texts = []
    """The code of the architecture."""
    architecture: Texts = []
    """The idea of the architecture."""
    model: Texts = []
    """This very model."""


class Metadata(Section):
    """What a user says of a model. All of it may be left out."""

    name: str = ""
    """Name of the model."""
    description: str = ""
    """What it is for, and how it was made."""
    authors: Texts = []
    """Who trained it."""
    references: References = References()
    """What to cite for it."""
    extra: Annotated[dict[str, str], BeforeValidator(_as_texts)] = {}
    """Anything else, by name."""

    @model_validator(mode="before")
    @classmethod
    def _keys_and_values(cls, data: Any) -> Any:
        if data is not None and not isinstance(data, dict):
            keys = ", ".join(cls.model_fields)
            raise ValueError(f"must hold keys and values ({keys}), got {shown(data)}")
        return data or {}


def read_metadata(path: Path | str) -> dict[str, Any]:
    """Read a user's metadata file: YAML with the keys of :class:`Metadata`.

    Raises OptionsError for a missing file, unknown keys or values of the wrong form.
    """
    source = read_file(path, "metadata")
    return _plain(validate(Metadata, source.values, (), source))


def merge_metadata(
    base: Mapping[str, Any], user: Mapping[str, Any], *, where: str = "metadata"
) -> dict[str, Any]:
    """``base`` with the ``user``'s entries: texts replace, lists and dictionaries are joined.

    Raises OptionsError, beginning with ``where``, as :func:`read_metadata` does.
    """
    source = Source(where, what="metadata")
    first, second = (validate(Metadata, dict(side), (), source) for side in (base, user))
    return _plain(
        Metadata(
            name=second.name or first.name,
            description=second.description or first.description,
            authors=_joined(first.authors, second.authors),
            references=References(
                **{
                    key: _joined(getattr(first.references, key), getattr(second.references, key))
                    for key in References.model_fields
                }
            ),
            extra={**first.extra, **second.extra},
        )
    )


def _joined(first: list[str], second: list[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _plain(metadata: Metadata) -> dict[str, Any]:
    """As plain data, without kinds of references of which there are none."""
    data = metadata.model_dump()
    data["references"] = {key: texts for key, texts in data["references"].items() if texts}
    return data


def complete_metadata(metadata: Mapping[str, Any], dataset_info: DatasetInfo) -> dict[str, Any]:
    """Arguments for metatomic's ``ModelMetadata``; ``extra`` always tells version and data set."""
    merged = merge_metadata({}, metadata)
    merged["extra"].setdefault("atomtrain_version", __version__)
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
