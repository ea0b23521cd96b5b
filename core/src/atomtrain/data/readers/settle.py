"""What holds for every reader once frames are read: checks of them, and what the options decide.

The options decide on elements of types and on steps that did not converge.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from atomtrain.data.readers.account import Frames, Quantity, Reading
from atomtrain.data.readers.base import listed
from atomtrain.data.readers.frames import symmetric
from atomtrain.errors import DataError

SOME = 50
"""frames that are looked at where one speaks for the others"""
CELL = re.compile(
    r"(unit_?|simulation_?|sim_?|h)?(cell|box|lattice)(_?(vectors?|param\w*|lengths?|abc))?$",
    re.IGNORECASE,
)
"""names that people give to a cell"""


def settled(frames: Frames, reading: Reading, path: str, where: str) -> Frames:
    """The frames as the options want them. DataError where the options leave it open."""
    _name_elements(frames, reading, path, where)
    _singular_force(frames)
    _stress_against_virial(frames)
    _check_cells(frames, path, where)
    return _converged(frames, reading, path, where)


def _name_elements(frames: Frames, reading: Reading, path: str, where: str) -> None:
    """Elements for types."""
    account, elements = frames.account, dict(reading.types)
    if not account.types:
        if elements:
            account.notes.append("it names elements, so that 'types' of the options is not used")
        return
    found = np.unique(np.concatenate([frame.numbers for frame in frames])).tolist()
    unknown = [kind for kind in found if kind not in elements]
    if unknown:
        example = ", ".join(f"{kind}: ..." for kind in found)
        what = f"leave out {', '.join(map(str, unknown))}" if elements else "must say which"
        raise DataError(
            f"{where}: '{path}' ({account.format}) has atoms of types {', '.join(map(str, found))}, not "
            f"of elements, and the options {what}; write in 'systems' "
            f"types: {{{example}}} with the symbol of each"
        )
    for frame in frames:
        frame.numbers = np.array(
            [elements[kind] for kind in frame.numbers.tolist()], dtype=np.int64
        )


def _converged(frames: Frames, reading: Reading, path: str, where: str) -> Frames:
    """What is left if steps that did not converge are dropped; DataError if they are refused."""
    account = frames.account
    if not account.unconverged:
        return frames
    many = len(account.unconverged)
    said = f"the electrons of {many} of {len(frames)} structures did not converge ({listed(account.unconverged)})"
    if reading.unconverged == "refuse":
        raise DataError(
            f"{where}: '{path}' ({account.format}): {said}: their energies and forces are wrong; write in "
            "'systems' unconverged: drop to leave them out, or unconverged: keep to train on them"
        )
    if reading.unconverged == "keep":
        account.warnings.append(f"{said}, and are kept")
        return frames
    left = [frame for k, frame in enumerate(frames) if k not in set(account.unconverged)]
    account.warnings.append(f"{said}, and are left out: frames are counted without them")
    if not left:
        raise DataError(f"{where}: '{path}': {said}, so that no structure is left")
    return Frames(left, replace(account, unconverged=[]))


def _singular_force(frames: Frames) -> None:
    """GPUMD's ``force`` of atoms is what others call ``forces``."""
    for frame in frames:
        force = frame.per_atom.get("force")
        if force is None or force.ndim != 2 or frame.find("forces") is not None:
            return
    for frame in frames:
        frame.per_atom["forces"] = frame.per_atom["force"]
    frames.account.quantities.setdefault("forces", Quantity("force"))


def _stress_against_virial(frames: Frames) -> None:
    """Where frames have both: a virial is minus volume times stress, in ASE's sign."""
    signs = []
    for frame in frames[:: max(len(frames) // SOME, 1)]:
        values = [frame.find("stress"), frame.find("virial")]
        if any(value is None or np.size(value) not in (6, 9) for value in values):
            continue
        try:
            stress, virial = (symmetric(value) for value in values)
        except (ValueError, TypeError):
            continue
        expected = -virial / max(abs(np.linalg.det(frame.cell)), 1e-30)
        size = np.abs(expected).max()
        if size == 0 or np.abs(stress).max() == 0:
            continue
        near = [np.abs(stress - sign * expected).max() < 0.02 * size for sign in (1, -1)]
        signs.append(1 if near[0] else -1 if near[1] else 0)
    if not signs:
        return
    account = frames.account
    if set(signs) == {-1}:
        known = account.quantities.get("stress", Quantity())
        note = "positive under compression, as the virial beside it shows"
        account.quantities["stress"] = replace(known, compression=True, note=note)
    elif set(signs) != {1}:
        account.warnings.append(
            "stress and virial of its frames disagree (a virial is minus volume times stress): one of them "
            "has another unit or sign; say which with unit and positive, or set one to false"
        )


def _check_cells(frames: Frames, path: str, where: str) -> None:
    """A cell under a name that is not read would make a cluster of a crystal."""
    lost: dict[str, list[int]] = {}
    for k, frame in enumerate(frames):
        if frame.cell.any():
            continue
        for key, value in frame.per_structure.items():
            if (
                isinstance(key, str)
                and CELL.match(key)
                and np.size(value) in (3, 6, 9)
                and _numeric(value)
            ):
                lost.setdefault(key, []).append(k)
    for key, found in lost.items():
        raise DataError(
            f"{where}: {listed(found)} of '{path}' have no cell, but a value '{key}' that looks like one; "
            'write it as Lattice="ax ay az bx by bz cx cy cz", or remove it'
        )
    without = [k for k, frame in enumerate(frames) if not frame.cell.any()]
    if 0 < len(without) < len(frames):
        frames.account.notes.append(
            f"{listed(without)} have no cell, {len(frames) - len(without)} have"
        )


def _numeric(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "iuf"
