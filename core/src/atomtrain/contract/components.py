"""What a component package offers: small frozen descriptions that load their code when used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ComponentSpec:
    """A dataset reader, task, loss or observer.

    ``load()`` imports and returns the implementation; it runs only when the options name ``name``.
    """

    name: str
    summary: str
    load: Callable[[], Any]
