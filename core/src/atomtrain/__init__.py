"""atomtrain: train machine-learned models of atoms from one YAML file.

Importing this costs nothing. ``train``, ``dry_run``, ``convert``, ``evaluate``, ``verify``, ``export``, ``load`` and
``show``, what the command line calls, are attributes of this package and live in :mod:`atomtrain.api`; the first use of
one imports torch. Their errors are in :mod:`atomtrain.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomtrain._version import __version__

if TYPE_CHECKING:
    from atomtrain.api import convert, dry_run, evaluate, export, load, show, train, verify

_API = ("train", "dry_run", "convert", "evaluate", "export", "load", "show", "verify")
__all__ = [
    "__version__",
    "convert",
    "dry_run",
    "evaluate",
    "export",
    "load",
    "show",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _API:
        from atomtrain import api

        return getattr(api, name)
    raise AttributeError(f"module 'atomtrain' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
