"""From what files say to labels: found, checked, masked, with the right sign and shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from atomtrain.data.readers import DataFile, Files, Frame, Rows, Wanted, listed
from atomtrain.data.store import Label
from atomtrain.errors import DataError, nearest
from atomtrain.options import DatasetSection, GradientSection, TargetSection
from atomtrain.targets import TargetInfo
from atomtrain.tasks import task_of


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
    wanted = Wanted(structures, chosen, section.where(part, name))
    file = files.open(target.read_from, target.reader, wanted.where)
    file.check(wanted)
    return _label(
        file,
        wanted,
        file.target(target.key, info, wanted),
        info.per_atom,
        key=target.key,
        allow_missing=target.allow_missing,
        nan_is_missing=info.width > 1 and not info.is_energy,
        what=f"target '{name}'",
    )


def task_label(
    files: Files,
    section: DatasetSection,
    name: str,
    target: TargetSection,
    info: TargetInfo,
    structures: Sequence[Frame],
    chosen: Sequence[int],
) -> Label:
    """As :func:`target_label`, for targets whose task reads, or computes, labels in its own way."""
    task = task_of(info.kind)
    wanted = Wanted(structures, chosen, section.where("targets", name))
    rows = Rows.absent(wanted, info.per_atom, info.width, f"'{target.key}'")
    computed = task.computes_labels(info, target.labels_given)
    file = files.open(target.read_from, target.reader, wanted.where)
    values = _raw(file, target.key, info, wanted) if not computed else [None] * len(chosen)
    start = 0
    for k, value, count in zip(chosen, values, wanted.counts(info.per_atom).tolist(), strict=True):
        part = slice(start, start + count)
        start += count
        if value is None and not computed:
            continue
        try:
            rows.values[part] = task.row(value, info, structures[k])
        except (ValueError, TypeError) as error:
            what = f"frame {k}" if computed else f"'{target.key}' of frame {k}"
            raise DataError(f"{wanted.where}: {what} in '{file.path}': {error}") from None
        rows.there[part] = True
    return _label(
        file,
        wanted,
        rows,
        info.per_atom,
        key=target.key,
        allow_missing=target.allow_missing,
        nan_is_missing=target.allow_missing,
        what=f"target '{name}'",
    )


def classes_of(
    files: Files,
    section: DatasetSection,
    name: str,
    target: TargetSection,
    info: TargetInfo,
    structures: Sequence[Frame],
    chosen: Sequence[int],
) -> tuple[str, ...]:
    """Names of the classes that occur in a section. Raises DataError where there are none."""
    wanted = Wanted(structures, chosen, section.where("targets", name))
    file = files.open(target.read_from, target.reader, wanted.where)
    values = [v for v in _raw(file, target.key, info, wanted) if v is not None]
    if not values:
        raise DataError(
            f"{wanted.where}: '{file.path}' has no '{target.key}'{_hint(file, target.key)}"
        )
    try:
        return task_of(info.kind).classes_in(values)
    except ValueError as error:
        raise DataError(f"{wanted.where}: '{target.key}' of '{file.path}': {error}") from None


def _raw(file: DataFile, key: str, info: TargetInfo, wanted: Wanted) -> list[Any]:
    file.check(wanted)
    return file.raw(key, info, wanted)


def gradient_label(
    files: Files,
    section: DatasetSection,
    name: str,
    kind: Literal["forces", "stress", "virial"],
    gradient: GradientSection,
    structures: Sequence[Frame],
    chosen: Sequence[int],
) -> Label | None:
    """Forces ``[n_atoms, 3]`` or strain derivative ``[n_structures, 9]`` of an energy.

    None where it is not required and the data do not have it. Stress means nothing without a
    volume: structures that are not periodic in all directions, and NaN, are masked.
    """
    wanted = Wanted(structures, chosen, section.where("targets", name, kind))
    file = files.open(gradient.read_from, gradient.reader, wanted.where)
    file.check(wanted)
    rows = file.gradient(gradient.key, kind, section.targets[name].key, wanted)
    forces = kind == "forces"
    applies = np.array([forces or structures[k].pbc.all() for k in chosen])
    applies = np.repeat(applies, wanted.counts(per_atom=forces))
    if not gradient.required and not rows.there[applies].any():
        return None
    label = _label(
        file,
        wanted,
        rows,
        forces,
        key=gradient.key,
        allow_missing=gradient.allow_missing,
        nan_is_missing=not forces,
        what=kind,
        applies=applies,
    )
    if not forces and label.mask is not None and not bool(label.mask.any()):
        if gradient.required:
            raise DataError(
                f"{wanted.where}: no structure has a usable {kind} (it needs a cell periodic in "
                "all directions); set it to false"
            )
        return None
    return label


def _label(
    file: DataFile,
    wanted: Wanted,
    rows: Rows,
    per_atom: bool,
    *,
    key: str,
    allow_missing: bool,
    nan_is_missing: bool,
    what: str,
    applies: np.ndarray | None = None,
) -> Label:
    """``rows`` of ``file`` as a label; where they do not apply ([n_rows] bool) they are masked."""
    there = rows.there if applies is None else rows.there & applies[:, None]
    lacking = ~rows.there if applies is None else ~rows.there & applies[:, None]
    broken = there & (np.isinf(rows.values) if nan_is_missing else ~np.isfinite(rows.values))
    if broken.any():
        raise DataError(
            f"{wanted.where}: {rows.name} is NaN or infinite in "
            f"{listed(_structures(broken, wanted, per_atom))} of '{file.path}'; remove these "
            "frames or repair them"
        )
    if lacking.any() and not there.any():
        raise DataError(f"{wanted.where}: '{file.path}' has no {rows.name}{_hint(file, key)}")
    if lacking.any() and not allow_missing:
        missing = _structures(lacking, wanted, per_atom)
        raise DataError(
            f"{wanted.where}: {rows.name} is missing in {len(missing)} of {len(wanted.chosen)} "
            f"structures ({listed(missing)} of '{file.path}'); complete the data, or set "
            f"allow_missing: true to train {what} on the others"
        )
    mask = there & np.isfinite(rows.values)
    return Label(
        torch.from_numpy(np.where(mask, rows.values, 0.0)),
        per_atom,
        None if mask.all() else torch.from_numpy(mask),
    )


def _structures(rows: np.ndarray, wanted: Wanted, per_atom: bool) -> list[int]:
    """Numbers of the structures of which some entries ``[n_rows, width]`` are true."""
    structures = np.repeat(np.asarray(wanted.chosen), wanted.counts(per_atom))
    return list(dict.fromkeys(structures[rows.any(1)].tolist()))


def _hint(file: DataFile, key: str) -> str:
    known = sorted(file.keys)
    if not known:
        return "; the file has no other values"
    near = nearest(key, known)
    hint = f"; did you mean '{near}'?" if near else ";"
    return f"{hint} the file has: {', '.join(known)}"
