"""From pydantic's findings to sentences a person can act on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from atomtrain.errors import OptionsError, did_you_mean, nearest
from atomtrain.sections.document import Path, Source

S = TypeVar("S", bound=BaseModel)

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text",
    "list_type": "a list",
    "dict_type": "a section of 'key: value' lines",
    "model_type": "a section of 'key: value' lines",
    "model_attributes_type": "a section of 'key: value' lines",
    "none_required": "nothing (null)",
    "finite_number": "a finite number",
}


class Problems(ValueError):
    """Raised by validators: what is wrong, at paths relative to the section that raises it."""

    def __init__(self, *problems: tuple[Sequence[str | int], str]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = [(tuple(path), message) for path, message in problems]

    @classmethod
    def at(cls, path: str | Sequence[str | int], message: str) -> Problems:
        """One problem, at a key or a path."""
        return cls(((path,) if isinstance(path, str) else path, message))


@dataclass(frozen=True)
class _Finding:
    path: Path
    message: str = ""
    expected: str = ""
    given: Any = None
    branch: int = 0  # which alternative of a union it belongs to, 0 outside of unions


def shown(value: Any) -> str:
    """A value of the options file as a person would call it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        text = json.dumps(value, default=str)
        return text if len(text) <= 40 else f"a list of {len(value)}"
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}...'"
    return repr(value)


def fail(problems: Iterable[tuple[Path, str]], source: Source) -> OptionsError:
    """The one error for any number of located problems, in the order of the file."""
    located = [(source.line(path), f"{source.where(path)}: {text}") for path, text in problems]
    lines = list(dict.fromkeys(text for _, text in sorted(located, key=lambda item: item[0])))
    if len(lines) == 1:
        return OptionsError(lines[0])
    return OptionsError(f"{len(lines)} problems in the {source.what}:\n  " + "\n  ".join(lines))


def validate(cls: type[S], values: Any, path: Path, source: Source) -> S:
    """The section ``values``, which is at ``path`` of ``source``.

    Raises OptionsError with file, line, key and the nearest known name for everything that is wrong.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise fail(translate(error, cls, path), source) from None


def translate(
    error: ValidationError, cls: type[BaseModel], prefix: Path = ()
) -> list[tuple[Path, str]]:
    """Located messages for everything pydantic found in a section of class ``cls`` at ``prefix``."""
    findings: list[_Finding] = []
    for found in error.errors(include_url=False):
        path, owner, branch = _follow(cls, found["loc"])
        findings += _sentences(dict(found), path, owner, branch)
    findings = _without_lost_branches(findings)
    result: list[tuple[Path, str]] = []
    for path in dict.fromkeys(finding.path for finding in findings):
        here = [f for f in findings if f.path == path]
        expected = list(dict.fromkeys(f.expected for f in here if f.expected))
        if expected:
            given = next(f.given for f in here if f.expected)
            result.append(((*prefix, *path), f"expected {_either(expected)}, got {shown(given)}"))
        result += [((*prefix, *path), f.message) for f in here if f.message]
    return result


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _sentences(found: dict[str, Any], path: Path, owner: Any, branch: int) -> list[_Finding]:
    kind, given, context = found["type"], found["input"], found.get("ctx", {})
    if kind == "extra_forbidden":
        fields = list(owner.model_fields) if owner is not None else []
        return [_Finding(path, f"unknown key{did_you_mean(path[-1], fields)}", branch=branch)]
    if kind == "missing":
        return [_Finding(path, "is missing", branch=branch)]
    if kind in ("value_error", "assertion_error"):
        cause = context["error"]
        if isinstance(cause, Problems):
            return [_Finding((*path, *p), text, branch=branch) for p, text in cause.problems]
        return [_Finding(path, str(cause), branch=branch)]
    if kind in ("literal_error", "enum"):
        words = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        close = nearest(given, words) if isinstance(given, str) else None
        hint = f"; did you mean '{close}'?" if close else ""
        if branch:
            return [_Finding(path, expected=_either(words), given=given, branch=branch)]
        return [_Finding(path, f"expected {_either(words)}, got {shown(given)}{hint}")]
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        limit = next(iter(context.values()))
        relation = {
            "greater_than": "must be greater than",
            "greater_than_equal": "must be at least",
            "less_than": "must be less than",
            "less_than_equal": "must be at most",
        }[kind]
        return [_Finding(path, f"{relation} {limit:g}, got {shown(given)}", branch=branch)]
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        side = "at least" if kind == "too_short" else "at most"
        entries = "1 entry" if bound == 1 else f"{bound} entries"
        problem = f"expected {side} {entries}, got {context['actual_length']}"
        return [_Finding(path, problem, branch=branch)]
    if kind == "invalid_key":
        return [_Finding(path, "a key must be text", branch=branch)]
    if kind in _EXPECTED:
        return [_Finding(path, expected=_EXPECTED[kind], given=given, branch=branch)]
    return [_Finding(path, found["msg"], branch=branch)]


def _without_lost_branches(findings: list[_Finding]) -> list[_Finding]:
    """Drop the alternatives of a union which the user cannot have meant.

    Where one alternative got further into the data (its problem lies deeper, or is with a value of
    the right kind), the others only say that a section is not text, or the like.
    """

    def lost(one: _Finding, other: _Finding) -> bool:
        if not one.branch or not other.branch or one.branch == other.branch:
            return False
        deeper = len(other.path) > len(one.path) and other.path[: len(one.path)] == one.path
        further = other.path == one.path and bool(one.expected) and not other.expected
        return deeper or further

    return [one for one in findings if not any(lost(one, other) for other in findings)]


def _follow(cls: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[Path, Any, int]:
    """Walk a pydantic location: the path in the data, the section it ends in, the union branch.

    pydantic mixes the names of union members (``list[int]``) and ``[key]`` into its locations.
    """
    here: list[Any] = [cls]
    path: list[str | int] = []
    owner: Any = cls
    branch = 0
    labelled = False
    for part in loc:
        if part == "[key]":
            continue
        if len(here) > 1 and not labelled:
            chosen = [k for k, one in enumerate(here) if _is_label(str(part), one)]
            branch = branch * 16 + (chosen[0] if chosen else len(here)) + 1
            here, labelled = ([here[chosen[0]]] if chosen else here), True
            continue
        owner = next((one for one in here if _is_model(one)), None)
        path.append(part)
        here = [
            inner for one in here for child in _children(one, part) for inner in _members(child)
        ]
        labelled = False
    return tuple(path), owner, branch


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _members(annotation: Any) -> list[Any]:
    """The alternatives of a type, None left out."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [_members(member) for member in get_args(annotation)]
        return [inner for inside in members for inner in inside if inner is not type(None)]
    return [annotation]


def _children(annotation: Any, part: str | int) -> list[Any]:
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return [] if field is None else [field.annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is list:
        return [args[0]]
    return [args[1]] if origin is dict else []


def _is_label(label: str, annotation: Any) -> bool:
    """Whether pydantic calls this alternative of a union ``label``."""
    origin = get_origin(annotation)
    name = "literal" if origin is Literal else getattr(origin or annotation, "__name__", "any")
    bare = label.removeprefix("constrained-").removeprefix("function-before[")
    return bare == name or bare.startswith(f"{name}[") or f", {name}" in bare
