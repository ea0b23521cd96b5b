"""Types of atoms in the options: numbers, or the symbols of elements."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field

from atomtrain.sections import Path, Problems
from atomtrain.sections.names import SYMBOLS, atomic_number

T = TypeVar("T")

_Written = (
    Annotated[int, Field(ge=1)]
    | Annotated[str, Field(json_schema_extra={"enum": [*SYMBOLS]})]
    | Annotated[str, Field(pattern="^([1-9][0-9]*|false)$")]  # false: how YAML reads nobelium
    | Literal[False]
)
AtomicType = Annotated[int, BeforeValidator(atomic_number, json_schema_input_type=_Written)]
"""an atomic number, in the file also a symbol"""


def by_number(mapping: Any) -> Any:
    """Numbers for the keys of a mapping."""
    if not isinstance(mapping, dict):
        return mapping
    numbered: dict[int, Any] = {}
    problems: list[tuple[Path, str]] = []
    for key, value in mapping.items():
        try:
            number = atomic_number(key)
        except ValueError as error:
            problems.append(((str(key),), str(error)))
            continue
        if number in numbered:
            problems.append(((str(key),), f"atomic type {number} is given twice"))
        numbered[number] = value
    if problems:
        raise Problems(*problems)
    return numbered


ByType = Annotated[dict[AtomicType, T], BeforeValidator(by_number)]
"""something for each of some types"""
