"""From a model and structures to a result."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from metatomic.torch import AtomisticModel

from atomtrain.errors import DataError, TargetError
from atomtrain.model.export import load_model
from atomtrain.sections.names import symbols
from atomtrain_dynamics.engine import Model, model_of, simulate
from atomtrain_dynamics.result import Result
from atomtrain_dynamics.settings import Settings, check_variant
from atomtrain_dynamics.structures import Reference, Seen, Structure

log = logging.getLogger("atomtrain")


def open_model(
    path: Path, variant: str | None, extensions: Path | None = None, device: str | None = None
) -> tuple[AtomisticModel, Model]:
    """An exported model and its energies and forces, by metatomic's calculator for ASE.

    Raises CheckpointError for what is no model, TargetError where it has no energy, OptionsError for a ``variant``
    that it lacks.
    """
    model = load_model(path, extensions=extensions)
    outputs = model.capabilities().outputs
    energies = [name for name in outputs if name == "energy" or name.startswith("energy/")]
    if not energies:
        raise TargetError(
            f"'{path}' has no energy to make dynamics with; its outputs are {', '.join(outputs)}"
        )
    check_variant(energies, variant, f"'{path}'")
    chosen = f"energy/{variant}" if variant else "energy" if "energy" in energies else energies[0]
    _warn_of_units(path, model, chosen)
    from metatomic_ase import MetatomicCalculator

    variants = {"energy": variant} if variant else None
    if device not in model.capabilities().supported_devices:
        device = None  # the best of those that it has
    calculator = MetatomicCalculator(
        model, device=device, variants=variants, uncertainty_threshold=None
    )
    return model, model_of(calculator)


def _warn_of_units(path: Path, model: AtomisticModel, energy: str) -> None:
    """Say so where a model does not tell its units: engines take its numbers as eV and angstrom, and so do we."""
    capabilities = model.capabilities()
    silent = {
        f"of '{energy}'": "eV" if not capabilities.outputs[energy].unit else "",
        "of length": "angstrom" if not capabilities.length_unit else "",
    }
    for what, taken in silent.items():
        if taken:
            log.warning(
                f"dynamics: '{path}' does not say its unit {what}, which is taken as {taken}; if that is wrong, so are "
                "the forces: state it in the options and train again"
            )


def check(
    model: Model,
    settings: Settings,
    data: Sequence[Structure],
    starts: Sequence[Structure],
    *,
    name: str = "",
    elements: Sequence[int] | None = None,
) -> Result:
    """Dynamics from some of ``starts``, beside what the ``data`` have.

    ``elements`` are those that the model knows. Raises DataError where nothing can move, or for other elements.
    """
    chosen = _chosen(starts, settings)
    for one in chosen if elements is not None else ():
        unknown = set(one.atoms.numbers.tolist()) - set(elements or ())
        if unknown:
            raise DataError(
                f"the model does not know {symbols(sorted(unknown))}, which are in {one.name}"
            )
    seen = Seen.of(data)
    ran = simulate(chosen, model, settings, seen)
    references = {kind: Reference.of(data, kind) for kind in {run.kind for run in ran.runs}}
    references |= {  # a composition that is in the test set alone
        kind: Reference.of(starts, kind) for kind, one in references.items() if not one.whole.frames
    }
    return Result(ran, seen, references, name)


def _chosen(structures: Sequence[Structure], settings: Settings) -> list[Structure]:
    """Those that dynamics start from, evenly; the same again where there are too few."""
    moving = [one for one in structures if _moves(one, settings.repeat)]
    if not moving:
        raise DataError(
            "no structure has two atoms to move against each other; for cells of one atom ask to repeat them"
        )
    places = np.linspace(0, len(moving) - 1, settings.starts).astype(int)
    return [moving[k] for k in places.tolist()]


def _moves(one: Structure, repeat: int) -> bool:
    copies = repeat ** int(one.atoms.pbc.sum())
    return len(one.atoms) * copies > 1


def to_plain(value: Any) -> Any:
    """Plain data without what JSON has not: NaN and infinities are None."""
    if isinstance(value, dict):
        return {key: to_plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [to_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
