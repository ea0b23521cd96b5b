"""From pydantic's findings to sentences a person can act on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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


Choice = tuple[Path, int]
"""a union, by where it is, and one of its alternatives"""


@dataclass(frozen=True)
class _Finding:
    path: Path
    message: str = ""
    expected: tuple[str, ...] = ()  # in place of a message: what would be right there
    given: Any = None
    known: tuple[str, ...] | None = None  # for an unknown key: those there are
    missing: bool = False
    choices: tuple[Choice, ...] = ()  # of unions around it, from the outside in


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
    """Located messages for everything pydantic found in a section of class ``cls`` at ``prefix``.

    One mistake is one message: of a union only what the user can have meant is spoken of.
    """
    findings: list[_Finding] = []
    for found in error.errors(include_url=False):
        path, owner, choices = _follow(cls, found["loc"])
        findings += [replace(f, choices=choices) for f in _findings(dict(found), path, owner)]
    findings = _meant(_without_misspelt(findings))
    result: list[tuple[Path, str]] = []
    for path in dict.fromkeys(finding.path for finding in findings):
        here = [f for f in findings if f.path == path]
        result += [((*prefix, *path), message) for message in _messages(path, here)]
    return result


def _messages(path: Path, here: list[_Finding]) -> Iterator[str]:
    """What is wrong at one place."""
    expected = list(dict.fromkeys(word for f in here for word in f.expected))
    if expected:
        given = next(f.given for f in here if f.expected)
        close = nearest(given, expected) if isinstance(given, str) else None
        hint = f"; did you mean '{close}'?" if close and close != given else ""
        yield f"expected {_either(expected)}, got {shown(given)}{hint}"
    unknown = [f.known for f in here if f.known is not None]
    if unknown:
        known = dict.fromkeys(name for names in unknown for name in names)
        yield f"unknown key{did_you_mean(path[-1], known)}"
    yield from dict.fromkeys(f.message for f in here if f.message)


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _findings(found: dict[str, Any], path: Path, owner: Any) -> list[_Finding]:
    """One of pydantic's errors, at ``path``, in a section of class ``owner`` (None: in none)."""
    kind, given, context = found["type"], found["input"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return [_Finding(path, known=tuple(owner.model_fields) if owner is not None else ())]
    if kind == "missing":
        return [_Finding(path, "is missing", missing=True)]
    if kind in ("value_error", "assertion_error"):
        cause = context["error"]
        if isinstance(cause, Problems):
            return [_Finding((*path, *p), text) for p, text in cause.problems]
        return [_Finding(path, str(cause))]
    if kind in ("literal_error", "enum"):
        words = context["expected"].replace(" or ", ", ").split(", ")
        return [_Finding(path, expected=tuple(word.strip("'") for word in words), given=given)]
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        limit = next(iter(context.values()))
        relation = {
            "greater_than": "must be greater than",
            "greater_than_equal": "must be at least",
            "less_than": "must be less than",
            "less_than_equal": "must be at most",
        }[kind]
        return [_Finding(path, f"{relation} {limit:g}, got {shown(given)}")]
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        side = "at least" if kind == "too_short" else "at most"
        entries = "1 entry" if bound == 1 else f"{bound} entries"
        return [_Finding(path, f"expected {side} {entries}, got {context['actual_length']}")]
    if kind == "invalid_key":
        return [_Finding(path, "a key must be text")]
    if kind in _EXPECTED:
        return [_Finding(path, expected=(_EXPECTED[kind],), given=given)]
    return [_Finding(path, found["msg"])]


def _without_misspelt(findings: list[_Finding]) -> list[_Finding]:
    """Drop keys that are missing because they are there under a name with a slip in it."""
    meant = {
        (f.choices, (*f.path[:-1], nearest(f.path[-1], f.known)))
        for f in findings
        if f.known is not None
    }
    return [f for f in findings if not (f.missing and (f.choices, f.path) in meant)]


def _meant(findings: list[_Finding]) -> list[_Finding]:
    """Drop the alternatives of unions which the user cannot have meant.

    Those that got into the data, or find a value of the right kind there, are meant rather than those
    that only wanted something else; of them the one whose keys fit best, which then has the fewest
    problems. Where several are as likely, the keys that they miss are one problem.
    """
    for union in dict.fromkeys(choice[0] for f in findings for choice in f.choices):
        inside: dict[int, list[_Finding]] = {}
        for finding in findings:
            for where, alternative in finding.choices:
                if where == union:
                    inside.setdefault(alternative, []).append(finding)
        misfits = {k: _misfit(own, union) for k, own in inside.items()}
        kept = [k for k, misfit in misfits.items() if misfit == min(misfits.values())]
        dropped = [f for k, own in inside.items() if k not in kept for f in own]
        lacking = [f for k in kept for f in inside[k] if f.missing]
        if len({f.path for f in lacking}) > 1 < len(kept):
            keys = _either(list(dict.fromkeys(f"'{f.path[-1]}'" for f in lacking)))
            dropped += lacking
            findings = [*findings, _Finding(lacking[0].path[:-1], f"{keys} is missing")]
        findings = [f for f in findings if not any(f is one for one in dropped)]
    return findings


def _misfit(findings: list[_Finding], union: Path) -> tuple[bool, int, int]:
    """How badly an alternative fits the value at ``union``: the smaller the likelier it was meant."""
    another_kind = all(f.path == union and bool(f.expected) for f in findings)
    if another_kind:  # whichever it is
        return (True, 0, 0)
    keys = [f for f in findings if f.path[:-1] == union and (f.missing or f.known is not None)]
    return (False, len(keys), len(findings))


def _follow(
    cls: type[BaseModel], loc: tuple[str | int, ...]
) -> tuple[Path, Any, tuple[Choice, ...]]:
    """Walk a pydantic location: the path in the data, the section it ends in, what unions chose.

    pydantic mixes the names of union members (``list[int]``) and ``[key]`` into its locations.
    """
    here: list[Any] = [cls]
    path: Path = ()
    owner: Any = cls
    choices: list[Choice] = []
    labelled = False
    for part in loc:
        if part == "[key]":
            continue
        if len(here) > 1 and not labelled:
            chosen = [k for k, one in enumerate(here) if _is_label(str(part), one)]
            choices.append((path, chosen[0] if chosen else len(here)))
            here, labelled = ([here[chosen[0]]] if chosen else here), True
            continue
        owner = next((one for one in here if _is_model(one)), None)
        path = (*path, part)
        here = [
            inner for one in here for child in _children(one, part) for inner in _members(child)
        ]
        labelled = False
    return path, owner, tuple(choices)


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
