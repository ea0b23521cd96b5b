"""From what files say to labels: found, checked, masked, with the right sign and shape."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atomtrain.data.readers import Files, Frame
from atomtrain.data.store import Label
from atomtrain.errors import DataError
from atomtrain.targets import TargetInfo

if TYPE_CHECKING:
    from atomtrain.options import DatasetSection, GradientSection, TargetSection

VOIGT = ((0, 5, 4), (5, 1, 3), (4, 3, 2))
"""index of each entry of a symmetric 3x3 matrix in ASE's order xx, yy, zz, yz, xz, xy"""


def target_label(
    files: Files,
    section: DatasetSection,
    name: str,
    target: TargetSection,
    info: TargetInfo,
    structures: Sequence[Frame],
    chosen: Sequence[int],
    part: str = "targets",
) -> Label:
    """The label of a target for the ``chosen`` frames (indices in the file), DataError if wrong.

    ``part`` of the section it is in, for messages: ``targets`` or ``extra_data``.
    """
    where = section.where(part, name)
    frames = _companions(files, target.read_from, target.reader, structures, chosen, where)
    width = info.width

    def convert(value: Any, frame: Frame) -> np.ndarray:
        if info.per_volume:  # a stress: ASE's six numbers are understood too
            return _matrix(value).reshape(1, 9)
        rows = len(frame.numbers) if info.per_atom else 1
        return _shaped(value, rows, width)

    several = width > 1 and not info.is_energy
    return _gather(
        frames,
        structures,
        chosen,
        key=target.key,
        file=target.read_from,
        where=where,
        per_atom=info.per_atom,
        width=width,
        convert=convert,
        allow_missing=target.allow_missing,
        nan_is_missing=several,
        what=f"target '{name}'",
    )


def gradient_label(
    files: Files,
    section: DatasetSection,
    name: str,
    kind: str,
    gradient: GradientSection,
    structures: Sequence[Frame],
    chosen: Sequence[int],
) -> Label | None:
    """Forces ``[n_atoms, 3]`` or strain derivative ``[n_structures, 9]`` of an energy.

    ``kind`` is ``forces``, ``stress`` or ``virial``. None where it is not required and the data do
    not have it. Stress means nothing without a volume: structures that are not periodic in all
    directions, and NaN, are masked.
    """
    where = section.where("targets", name, kind)
    frames = _companions(files, gradient.read_from, gradient.reader, structures, chosen, where)

    def applies(frame: Frame) -> bool:
        return kind == "forces" or bool(frame.pbc.all())

    if not gradient.required and not any(
        frames[k].find(gradient.key) is not None and applies(structures[k]) for k in chosen
    ):
        return None
    if kind == "forces":
        return _gather(
            frames,
            structures,
            chosen,
            key=gradient.key,
            file=gradient.read_from,
            where=where,
            per_atom=True,
            width=3,
            convert=lambda value, frame: _shaped(value, len(frame.numbers), 3),
            allow_missing=gradient.allow_missing,
            nan_is_missing=False,
            what="forces",
        )

    def strain(value: Any, frame: Frame) -> np.ndarray:
        matrix = _matrix(value)
        volume = abs(np.linalg.det(frame.cell))
        return (-matrix if kind == "virial" else matrix * volume).reshape(1, 9)

    label = _gather(
        frames,
        structures,
        chosen,
        key=gradient.key,
        file=gradient.read_from,
        where=where,
        per_atom=False,
        width=9,
        convert=strain,
        allow_missing=gradient.allow_missing,
        nan_is_missing=True,
        what=kind,
        applies=applies,
    )
    if label.mask is not None and not bool(label.mask.any()):
        if gradient.required:
            raise DataError(
                f"{where}: no structure has a usable {kind} (it needs a cell periodic in all "
                "directions); set it to false"
            )
        return None
    return label


def _companions(
    files: Files,
    path: str,
    reader: str | None,
    structures: Sequence[Frame],
    chosen: Sequence[int],
    where: str,
) -> Sequence[Frame]:
    """The frames a label is read from: as many as there are structures, with the same atoms."""
    frames = files.frames(path, reader, where)
    if len(frames) != len(structures):
        raise DataError(
            f"{where}: '{path}' holds {len(frames)} frames, but there are {len(structures)} "
            "structures"
        )
    other = [k for k in chosen if not np.array_equal(frames[k].numbers, structures[k].numbers)]
    if other:
        raise DataError(
            f"{where}: {_list(other)} of '{path}' {'has' if len(other) == 1 else 'have'} other "
            "atoms than the structures; labels must be in the order of the structures and their "
            "atoms"
        )
    return frames


def _gather(
    frames: Sequence[Frame],
    structures: Sequence[Frame],
    chosen: Sequence[int],
    *,
    key: str,
    file: str,
    where: str,
    per_atom: bool,
    width: int,
    convert: Callable[[Any, Frame], np.ndarray],
    allow_missing: bool,
    nan_is_missing: bool,
    what: str,
    applies: Callable[[Frame], bool] = lambda frame: True,
) -> Label:
    """Values under ``key`` of ``frames``; cells and atoms are those of ``structures``."""
    values: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    missing: list[int] = []
    broken: list[int] = []
    found_any = False
    for k in chosen:
        structure = structures[k]
        rows = len(structure.numbers) if per_atom else 1
        raw = frames[k].find(key)
        if raw is None or not applies(structure):
            if raw is None and applies(structure):
                missing.append(k)
            values.append(np.zeros((rows, width)))
            masks.append(np.zeros((rows, width), dtype=bool))
            continue
        found_any = True
        try:
            row = convert(raw, structure)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{where}: '{key}' of frame {k} in '{file}' does not fit: {error}"
            ) from None
        finite = np.isfinite(row)
        if not finite.all() and not (nan_is_missing and not np.isinf(row).any()):
            broken.append(k)
        values.append(np.where(finite, row, 0.0))
        masks.append(finite)
    if broken:
        raise DataError(
            f"{where}: '{key}' is NaN or infinite in {_list(broken)} of '{file}'; remove these "
            "frames or repair them"
        )
    if not found_any and missing:
        raise DataError(f"{where}: '{file}' has no '{key}'{_keys(frames, chosen, key)}")
    if missing and not allow_missing:
        raise DataError(
            f"{where}: '{key}' is missing in {len(missing)} of {len(chosen)} structures "
            f"({_list(missing)} of '{file}'); complete the data, or set allow_missing: true to "
            f"train {what} on the others"
        )
    mask = np.concatenate(masks)
    return Label(
        torch.from_numpy(np.concatenate(values).astype(np.float64)),
        per_atom,
        None if mask.all() else torch.from_numpy(mask),
    )


def _shaped(value: Any, rows: int, width: int) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.size != rows * width or (rows > 1 and array.shape[0] != rows):
        per = f"{rows} atoms x {width}" if rows > 1 or width > 1 else "a single number"
        raise ValueError(f"it has shape {array.shape}, expected {per}")
    return array.reshape(rows, width)


def _matrix(value: Any) -> np.ndarray:
    """A stress or virial as a 3x3 matrix, from 3x3, 9 or (ASE's order) 6 numbers."""
    array = np.asarray(value, dtype=np.float64)
    if array.size == 6:
        return np.take(array, VOIGT)
    if array.size == 9:
        return array.reshape(3, 3)
    raise ValueError(f"it has shape {array.shape}, expected 6 (xx, yy, zz, yz, xz, xy) or 3 x 3")


def _list(frames: Sequence[int]) -> str:
    shown = ", ".join(map(str, frames[:8]))
    plural = "frame" if len(frames) == 1 else "frames"
    return f"{plural} {shown}{', ...' if len(frames) > 8 else ''}"


def _keys(frames: Sequence[Frame], chosen: Sequence[int], key: str) -> str:
    known = sorted(set().union(*(frames[k].keys for k in chosen)))
    if not known:
        return "; the file has no values beside the structures"
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(key.lower(), list(lower), n=1, cutoff=0.5)
    hint = f"; did you mean '{lower[near[0]]}'?" if near else ";"
    return f"{hint} the file has: {', '.join(known)}"
