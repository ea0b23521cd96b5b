"""What the command line says, and what is chosen for a first options file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from atomtrain.data.readers import Reading
from atomtrain_inspect.finding import Report
from atomtrain_inspect.values import Value

Role = Literal["training", "validation", "test"]
ROLES: tuple[Role, ...] = ("training", "validation", "test")
Ask = Callable[[str, str, Sequence[str]], str]
"""asks a question, given the answer by default and what else may be answered (nothing: anything)"""


@dataclass(frozen=True)
class Given:
    """What the command line says; empty: nothing."""

    paths: Sequence[str]
    validation: Sequence[str] = ()
    test: Sequence[str] = ()
    reader: str | None = None
    reading: Reading = field(default_factory=Reading)
    keys: dict[str, str] = field(default_factory=dict)
    unit: str = ""
    length_unit: str = ""
    architecture: str = ""


@dataclass(frozen=True)
class Choice:
    """A value for the options, and a comment that says why it is this one."""

    value: Any
    why: str = ""


@dataclass
class Part:
    """Files that are one section of the options: their targets have the same keys."""

    role: Role
    paths: list[str]
    keys: dict[str, str]
    stated: str = ""
    length_unit: str = ""
    missing: dict[str, int] = field(default_factory=dict)


@dataclass
class Draft:
    """All that is written.

    ``training``: hypers; ``sets``: ``validation_set`` and ``test_set`` where they are no files of their own.
    """

    parts: list[Part]
    reader: str | None
    reading: Reading
    report: Report
    architecture: Choice
    length_unit: Choice
    unit: Choice
    target: Value | None
    others: list[Value]
    masks: list[str]
    training: dict[str, Choice] = field(default_factory=dict)
    sets: dict[str, Choice] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def energy(self) -> bool:
        """Whether an energy is trained."""
        return any("energy" in part.keys for part in self.parts)
