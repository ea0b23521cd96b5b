"""atomtrain: train machine-learned models of atoms from one YAML file.

Importing this costs nothing; :mod:`atomtrain.api` has ``train``, ``evaluate``, ``export``, ``load``
and ``show``, which are also attributes of this package.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
_API = ("train", "evaluate", "export", "load", "show")
__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name in _API:
        from atomtrain import api

        return getattr(api, name)
    raise AttributeError(f"module 'atomtrain' has no attribute '{name}'")
