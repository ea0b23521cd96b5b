"""What ``atomtrain check`` is told, as a subject and names of checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from atomtrain.errors import OptionsError, nearest
from atomtrain.options import validate
from atomtrain.plugins import open_architecture
from atomtrain.sections import Section, read_document
from atomtrain_testing.checks import CHECKS
from atomtrain_testing.subject import Subject


class CheckFile(Section):
    """What the file given to ``--hypers`` may say; see :class:`Subject`."""

    model: dict[str, Any] = {}
    """Hypers of the model."""
    training: dict[str, Any] = {}
    """Hypers of the training."""
    atomic_types: list[Annotated[int, Field(ge=1)]] = [1, 6, 8]
    """Atomic numbers the model is built for."""
    energy_conservative: bool = True
    """Whether forces are promised to be derivatives of the energy."""
    equivariant: bool = True
    """Whether symmetries are promised to be exact."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-8
    """Relative difference allowed where physics says equal."""
    fit_epochs: Annotated[int, Field(ge=1)] = 300
    """How long one batch is fitted."""
    fit_ratio: Annotated[float, Field(gt=0)] = 0.02
    """Part of its loss that may be left."""
    dtypes: list[Literal["float64", "float32", "bfloat16", "float16"]] = []
    """Floating point types it is run in; all that are declared if empty."""
    exempt: dict[str, str] = {}
    """Names of checks that are not run, with reasons."""


def subject_from(
    architecture: str, hypers: Path | None = None, golden: Path | None = None
) -> Subject:
    """The subject of an installed architecture, with what a YAML file says (a :class:`CheckFile`).

    The file may also be an options file, of which the section ``architecture`` is taken. Raises
    OptionsError with file, line and key, or PluginError where the architecture is broken.
    """
    info = open_architecture(architecture).info
    given = _read(hypers) if hypers is not None else CheckFile()
    names = known(list(given.exempt)) or []
    values = given.model_dump(exclude={"model", "training", "atomic_types", "dtypes"})
    return Subject(
        info.name,
        given.model,
        given.training,
        atomic_types=tuple(given.atomic_types),
        dtypes=tuple(given.dtypes),
        golden=golden,
        **{**values, "exempt": dict(zip(names, given.exempt.values(), strict=True))},
    )


def known(names: Sequence[str] | None) -> list[str] | None:
    """The names of checks as they are, ``-`` for ``_`` allowed. Raises OptionsError for others."""
    if not names:
        return None
    found = []
    for name in names:
        plain = name.replace("-", "_")
        if plain not in CHECKS:
            near = nearest(plain, CHECKS)
            hint = f"did you mean '{near}'?" if near else f"there are {', '.join(CHECKS)}"
            raise OptionsError(f"there is no check '{name}'; {hint}")
        found.append(plain)
    return found


def _read(path: Path) -> CheckFile:
    source = read_document(path)
    values = source.values
    if isinstance(values, dict) and isinstance(values.get("architecture"), dict):
        own = {k: v for k, v in values["architecture"].items() if k != "name"}
        return validate(CheckFile, own, ("architecture",), source)
    return validate(CheckFile, values, (), source)
