"""Sections of the options, pydantic models all, as tables of their keys."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from _pages.text import code, line, markdown, table
from atomtrain.options import DatasetSection, Options, TrainerHypers
from atomtrain.options.loss import LOSSES
from atomtrain.sections import sections_inside
from atomtrain.tasks import CORE_KINDS, task_of

_WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", Any: "anything"}
_LIMITS = {
    annotated_types.Ge: ("ge", "at least"),
    annotated_types.Gt: ("gt", "above"),
    annotated_types.Le: ("le", "at most"),
    annotated_types.Lt: ("lt", "below"),
}


def options_page() -> str:
    """The reference of the options file."""
    parts = [
        "# Options",
        "All keys of an options file, made from the models that validate it. A key set to `null` counts "
        "as absent; `${other.key}` stands for another value. The hypers of an architecture are on its "
        "own page; those of the training that all share are below.",
        sections(Options, ""),
        "## Losses",
        "What `loss` may name beside `weight`, `reduction` and `gradients`; packages bring further ones.",
    ]
    for name, arguments in LOSSES.items():
        parts += [f"### `{name}`", keys(arguments) or "No arguments."]
    parts += [
        "## Kinds of targets",
        "What the `type` of a target may be: one of these words, or `{word: {arguments}}`. Packages "
        "bring further ones.",
    ]
    for kind in CORE_KINDS:
        task = task_of(kind)
        about = markdown(type(task).__doc__).partition("\n\n")[0]
        losses = ", ".join(f"`{name}`" for name in task.losses)
        parts += [f"### `{kind}`", f"{about}\n\nLosses: {losses}.", keys(task.arguments)]
    parts += ["## Training", sections(TrainerHypers, "architecture.training")]
    return "\n\n".join(part for part in parts if part) + "\n"


def sections(cls: type[BaseModel], path: str, level: int = 2) -> str:
    """A section and all sections inside it, each a table of its keys under its place in the file."""
    parts = []
    for place, section in walk(cls, path):
        title = f"`{place}`" if place else "The file"
        parts += [f"{'#' * level} {title}", markdown(section.__doc__), keys(section)]
    return "\n\n".join(part for part in parts if part)


def walk(
    cls: type[BaseModel], path: str, seen: set[type] | None = None
) -> Iterator[tuple[str, type[BaseModel]]]:
    """A section class and those inside it, each once, with its place in the file.

    Structures that hypers name are as those of the options, which have them explained.
    """
    seen = set() if seen is None else seen
    if cls in seen or (cls is DatasetSection and Options not in seen):
        return
    seen.add(cls)
    yield path, cls
    for name, field in cls.model_fields.items():
        for inner, suffix in sections_inside(field.annotation):
            yield from walk(inner, f"{path}.{name}{suffix}".removeprefix("."), seen)


def keys(cls: type[BaseModel]) -> str:
    """The table of the keys of one section; empty if it has none."""
    if not cls.model_fields:
        return ""
    rows = [
        (f"`{name}`", kind(field), default(field), line(field.description))
        for name, field in cls.model_fields.items()
    ]
    return table(("key", "kind", "default", "what it is"), rows)


def default(field: FieldInfo) -> str:
    """The default of a key: a value, or a word where that is a section or nothing."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    return "absent" if value is None else code(value)


def kind(field: FieldInfo) -> str:
    """The kind of value a key takes, in words."""
    limits = [limit for limit in map(_limit, field.metadata) if limit]
    return ", ".join([" or ".join(dict.fromkeys(_kinds(field.annotation))), *limits])


def _limit(limit: Any) -> str:
    if type(limit) in _LIMITS:
        attribute, words = _LIMITS[type(limit)]
        return f"{words} {getattr(limit, attribute):g}"
    return ""


def _kinds(annotation: Any) -> list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return []
    if origin is Annotated:
        limits = [limit for limit in map(_limit, _flat(arguments[1:])) if limit]
        return [", ".join([*_kinds(arguments[0]), *limits])]
    if origin in (Union, UnionType):
        return [word for one in arguments for word in _kinds(one)]
    if origin is Literal:
        return [code(value) for value in arguments]
    if origin is list:
        return [f"list of {_plural(_kinds(arguments[0]))}"]
    if origin is dict:
        return [f"{_plural(_kinds(arguments[1]))} by name"]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return ["section"]
    return [_WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))]


def _flat(metadata: tuple[Any, ...]) -> Iterator[Any]:
    """Limits, also those inside a ``Field``."""
    for one in metadata:
        if isinstance(one, FieldInfo):
            yield from one.metadata
        else:
            yield one


def _plural(words: list[str]) -> str:
    return " or ".join(dict.fromkeys(map(_several, words)))


def _several(word: str) -> str:
    """More than one of a kind: ``whole numbers, at least 0``."""
    known = {"true or false": "booleans", "anything": "values"}
    if word in known or word.startswith("`"):
        return known.get(word, word)
    if word.endswith("by name"):
        return "sections"
    noun, of, rest = word.partition(" of ")
    noun, comma, limits = noun.partition(", ")
    return f"{noun}s{comma}{limits}{of}{rest}"
