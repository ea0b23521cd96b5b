"""What the options decide of frames that were read: elements of types, steps that did not converge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from atomtrain.data.readers.account import Frames, Reading
from atomtrain.data.readers.base import listed
from atomtrain.errors import DataError


def settled(frames: Frames, reading: Reading, path: str, where: str) -> Frames:
    """The frames as the options want them. DataError where the options leave it open."""
    _name_elements(frames, reading, path, where)
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
