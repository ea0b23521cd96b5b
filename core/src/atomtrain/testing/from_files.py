"""What ``atomtrain check`` is told, as a subject and names of checks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from atomtrain.contract import open_architecture
from atomtrain.errors import OptionsError
from atomtrain.testing.checks import CHECKS
from atomtrain.testing.subject import Subject


def subject_from(
    architecture: str, hypers: Path | None = None, golden: Path | None = None
) -> Subject:
    """The subject of an installed architecture with the hypers in a YAML file.

    The file has the keys ``model`` and ``training``, or is an options file, of which the section
    ``architecture`` is taken. Raises OptionsError, or PluginError where the architecture is broken.
    """
    info = open_architecture(architecture).info
    given = _read(hypers) if hypers is not None else {}
    return Subject(
        info.name,
        given.get("model") or {},
        given.get("training") or {},
        atomic_types=tuple(given.get("atomic_types") or (1, 6, 8)),
        golden=golden,
    )


def known(names: Sequence[str] | None) -> list[str] | None:
    """The names of checks as they are, ``-`` for ``_`` allowed. Raises OptionsError for others."""
    if not names:
        return None
    found = []
    for name in names:
        plain = name.replace("-", "_")
        if plain not in CHECKS:
            near = difflib.get_close_matches(plain, CHECKS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(CHECKS)}"
            raise OptionsError(f"there is no check '{name}'; {hint}")
        found.append(plain)
    return found


def _read(path: Path) -> Mapping[str, Any]:
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise OptionsError(f"the hypers in '{path}' cannot be read: {error}") from error
    if isinstance(given, dict) and isinstance(given.get("architecture"), dict):
        given = given["architecture"]
        given.pop("name", None)
    keys = {"model", "training", "atomic_types"}
    if not isinstance(given, dict) or set(given) - keys:
        raise OptionsError(
            f"'{path}' must have the keys 'model' and 'training' (and may have 'atomic_types'), "
            "each as below 'architecture' in an options file"
        )
    for key in ("model", "training"):
        if not isinstance(given.get(key) or {}, dict):
            raise OptionsError(f"'{path}': '{key}' must be a section")
    return given
