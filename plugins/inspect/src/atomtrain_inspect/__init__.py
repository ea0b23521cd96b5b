"""An audit of data before anything is trained: ``command`` is ``atomtrain inspect``.

``sets`` reads what is looked at, ``audit`` goes through it; ``energies``, ``stress`` and ``alike`` are the questions,
and the core's ``data.consistency`` is the one that trainings ask too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atomtrain_inspect.finding import Finding, Report

__version__ = "0.1.0"
__all__ = ["Finding", "Report", "__version__", "inspect_files", "inspect_options"]


def inspect_files(
    files: Sequence[str],
    *,
    reader: str | None = None,
    format: str = "",
    length_unit: str = "angstrom",
    unit: str = "",
    keys: dict[str, str] | None = None,
) -> Report:
    """What is to be said of files of structures, each by itself and beside the others.

    ``unit``: of energies; ``keys``: what ``energy``, ``forces``, ``stress`` or ``virial`` are called where
    that is not to be guessed. Raises DataError for what cannot be read.
    """
    from atomtrain_inspect.audit import audit
    from atomtrain_inspect.sets import of_files

    looked = of_files(
        files, reader=reader, format=format, length_unit=length_unit, unit=unit, keys=keys
    )
    return audit(looked)


def inspect_options(options: Path | str) -> Report:
    """The same of the sets that an options file makes, with its keys and units. Raises what a training would."""
    from atomtrain_inspect.audit import audit
    from atomtrain_inspect.sets import of_options

    return audit(of_options(options))
