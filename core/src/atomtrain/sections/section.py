"""The base of every section of the options: strict, documented, ``null`` means absent."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A section of the options file, and the base class of an architecture's hypers.

    Unknown keys are refused, types are strict (``"8"`` and ``true`` are no numbers), and the string
    below a field is its documentation. A key set to ``null`` counts as absent unless the field's
    own type allows None. A subclass that only changes a default keeps the parent's documentation
    and limits::

        class TrainerHypers(atomtrain.options.TrainerHypers):
            learning_rate: float = 5e-4
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            key: value
            for key, value in data.items()
            if value is not None
            or key not in cls.model_fields
            or _admits_none(cls.model_fields[key].annotation)
        }

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let a field which only changes a default inherit its documentation and limits."""
        changed = False
        for name, field in cls.model_fields.items():
            parents = (base.__dict__.get("__pydantic_fields__", {}) for base in cls.__mro__[1:])
            parent = next((fields[name] for fields in parents if name in fields), None)
            if parent is None or parent is field:
                continue
            if field.description is None and parent.description is not None:
                field.description, changed = parent.description, True
            if not field.metadata and parent.metadata:
                field.metadata, changed = list(parent.metadata), True
        if changed:
            cls.model_rebuild(force=True)


def defaults_of(cls: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a section as plain data; keys that are required are not there."""
    made: dict[str, Any] = cls.model_construct().model_dump(mode="json", warnings=False)
    return made


def sections_inside(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The section classes in the type of a key, and how they are reached from it: ``.<name>`` in dictionaries."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    elif origin is dict:
        yield from ((cls, f".<name>{suffix}") for cls, suffix in sections_inside(arguments[1]))
    elif origin is list or origin is Annotated:
        yield from sections_inside(arguments[0])
    elif origin in (Union, UnionType):
        for one in arguments:
            yield from sections_inside(one)


def _admits_none(annotation: Any) -> bool:
    if annotation is None or annotation is Any or annotation is type(None):
        return True
    if get_origin(annotation) in (Union, UnionType):
        return any(_admits_none(member) for member in get_args(annotation))
    return False
