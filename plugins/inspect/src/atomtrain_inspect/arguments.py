"""Arguments that commands share, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, List, Optional  # typer reads them on Python 3.10

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

Keys = Annotated[
    Optional[List[str]],
    typer.Option(
        "-k",
        "--key",
        help="What energy, forces, stress or virial are called: energy=REF_energy. Absent: guessed.",
        metavar="WHAT=KEY",
    ),
]
Reader = Annotated[Optional[str], typer.Option(help="Reader, as in the options. Absent: guessed.")]
Format = Annotated[
    str, typer.Option("-f", "--format", help="Format, as in the options. Absent: guessed.")
]


def keys_given(given: Sequence[str]) -> dict[str, str]:
    """What ``--key`` says: names by ``energy``, ``forces``, ``stress`` or ``virial``. Raises OptionsError."""
    from atomtrain.errors import OptionsError

    found = {}
    for one in given:
        what, _, name = one.partition("=")
        if what not in ("energy", "forces", "stress", "virial") or not name:
            raise OptionsError(
                f"--key {one}: write what is meant and its name, as in --key energy=REF_energy (energy, forces, "
                "stress or virial)"
            )
        found[what] = name
    if "stress" in found and "virial" in found:
        raise OptionsError("--key: stress and virial are one quantity; give one of them")
    return found
