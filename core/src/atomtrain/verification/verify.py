"""The verdict on the file of an exported model, and writing no other file than a right one."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from metatomic.torch import AtomisticModel
from torch import Tensor

from atomtrain.data import StructureStore
from atomtrain.errors import VerificationError, first_line
from atomtrain.model import Predictor, inputs_of
from atomtrain.model.export import load_model, save_model
from atomtrain.verification.calls import (
    ExportedFile,
    Given,
    atom_by_atom,
    repeated_calls,
)
from atomtrain.verification.curvature import curvature_off
from atomtrain.verification.lines import Lines
from atomtrain.verification.structures import few_small, made_up
from atomtrain.verification.wanted import Wanted, of_itself, of_predictor

log = logging.getLogger("atomtrain")


@dataclass
class Verification:
    """What was found right of a file, what was found wrong, and what could not be tried (and why)."""

    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)


def save_verified(
    model: AtomisticModel,
    path: Path,
    predictor: Predictor,
    structures: StructureStore | None = None,
    *,
    extensions: Path | str | None = None,
) -> list[str]:
    """Write ``model`` to ``path`` once its file was found to do what ``predictor`` does.

    Until then, and for good if it is wrong, the file is called ``<stem>.unverified.pt``: VerificationError. Gives
    what :func:`atomtrain.model.export.save_model` gives, whose errors it raises as well.
    """
    aside = unverified(path)
    foreign = save_model(model, aside, extensions=extensions)
    file = load_model(aside, extensions=extensions if foreign else None)
    found = verify(file, structures, predictor)
    report(found, path)
    if found.wrong:
        raise VerificationError(
            f"the exported model does not do what was trained: {'; '.join(found.wrong)}. It is written as "
            f"'{aside.name}', so that nobody uses it; the checkpoint is right. Report this to the authors of the "
            "architecture"
        )
    aside.replace(path)
    return foreign


def unverified(path: Path) -> Path:
    """What a file is called that was not, or not yet, found right: ``model.unverified.pt``."""
    return path.with_suffix(f".unverified{path.suffix}")


def report(found: Verification, path: Path) -> None:
    """Say in the log what was found right, and what could not be tried; what is wrong is for whoever called."""
    if found.right and not found.wrong:
        log.info(f"verified: {path} {' and '.join(found.right)}")
    for text in found.untried:
        log.warning(f"not verified: {path}: {text}")


def verify(
    model: AtomisticModel,
    structures: StructureStore | None = None,
    predictor: Predictor | None = None,
    *,
    length_unit: str | None = None,
) -> Verification:
    """Try a ``model``, fresh from its file, on a few small ``structures`` (None, or none: made-up ones).

    ``predictor``: what it was made of, if that is known; else the file is held against itself alone.
    ``length_unit``: that of the structures, by default the model's. A call that fails is something wrong.
    """
    devices = model.capabilities().supported_devices
    device = next((d for d in ("cpu", "cuda") if d in devices), None)
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        return Verification(untried=[f"it runs on {', '.join(devices)} only, not here"])
    found = Verification()
    try:
        file = ExportedFile(model, device, length_unit)
        if structures is None or len(structures) == 0:
            known = inputs_of(predictor.model) if predictor is not None else {}
            store = made_up(file.types, file.angstrom, known or file.extra_inputs)
        else:
            store = few_small(structures, file.angstrom)
        trained: dict[str, Wanted] = {}
        if predictor is not None:
            try:
                trained = of_predictor(predictor, store, file)
            except Exception as error:  # made-up structures may be none for this architecture
                found.untried.append(f"the trained model fails: {first_line(error, typed=True)}")
                return found
        _try(file, store, trained, found)
    except Exception as error:  # of TorchScript, metatomic, libraries: of any type
        lines = str(error).strip().splitlines() or [""]
        found.wrong.append(f"a call fails: {type(error).__name__}: {lines[-1].strip()}")
    return found


def _try(
    file: ExportedFile, store: StructureStore, trained: dict[str, Wanted], found: Verification
) -> None:
    """Make all calls, and say what is wrong with what they give."""
    given = [*repeated_calls(file, store), *atom_by_atom(file, store)]
    lines = Lines(store, file.angstrom)
    energies = lines.energies(file)
    given += [Given(name, torch.arange(len(store)), e[:, :1]) for name, e in energies.items()]
    own = of_itself(given, file)
    wanted = own | trained
    off: dict[str, float] = {}
    for one in given:
        want = wanted.get(one.key)
        if want is not None:
            here = _off(one.values, want.values[one.rows], want.allowed[one.rows])
            off[one.key] = max(off.get(one.key, 0.0), here)
    whose = "from the trained model's" if trained else "from call to call"
    found.wrong += [f"'{key}' differs {whose} by {by:.2g}" for key, by in off.items() if by]
    found.right.append(f"gives {'what was trained' if trained else 'the same'} in repeated calls")
    for name in energies:
        _derivatives(name, lines, energies[name], own, wanted, found)
        if name in file.hessians:
            forces_off = float(wanted[f"{name}:forces"].allowed.max())
            _curvature(name, curvature_off(file, store, name, forces_off), found)


def _derivatives(
    name: str,
    lines: Lines,
    energies: Tensor,
    own: dict[str, Wanted],
    wanted: dict[str, Wanted],
    found: Verification,
) -> None:
    """Whether forces and stress are derivatives of the energy ``name``, in words."""
    right = []
    for kind, word in (("forces", "forces"), ("strain", "stress")):
        key = f"{name}:{kind}"
        off = lines.off(kind, energies, own[key].values, float(wanted[key].allowed.max()))
        if off is None:
            found.untried.append(f"{word} of '{name}': the energy is too rough to tell")
        elif off > 0:
            found.wrong.append(f"{word} not the derivative of '{name}' ({off:.0%} off)")
        else:
            right.append(word)
    if right:
        found.right.append(f"{' and '.join(right)} as derivatives of '{name}'")


def _curvature(name: str, off: float | None, found: Verification) -> None:
    """Whether the Hessian is the derivative of the forces, in words."""
    if off is None:
        found.untried.append(f"Hessian of '{name}': the forces are too rough to tell")
    elif off > 0:
        found.wrong.append(
            f"the Hessian of '{name}' not the derivative of its forces ({off:.0%} off)"
        )
    else:
        found.right.append(f"the Hessian of '{name}' as the derivative of its forces")


def _off(values: Tensor, wanted: Tensor, allowed: Tensor) -> float:
    """The largest difference that is not allowed, or 0."""
    if values.shape != wanted.shape:
        return math.inf
    off = (values - wanted).abs().nan_to_num(math.inf)
    return float(torch.where(off > allowed, off, 0.0).max()) if off.numel() else 0.0
