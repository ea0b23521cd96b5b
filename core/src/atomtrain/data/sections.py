"""One section of the options: its files read, checked and packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from atomtrain.data.checks import check_read, gradient_warnings, label_warnings
from atomtrain.data.labels import SectionFiles
from atomtrain.data.readers import Files
from atomtrain.data.readers.base import GradientKind
from atomtrain.data.store import Label, StructureStore
from atomtrain.errors import DataError, OptionsError, TargetError, nearest
from atomtrain.graph import volumes
from atomtrain.options import DatasetSection
from atomtrain.targets import TargetInfo
from atomtrain.tasks import task_for, task_of

if TYPE_CHECKING:
    from atomtrain.data.streamed import LazySection


@dataclass
class Remarks:
    """Lines for the log on what was read: what is worth knowing, and what may be a mistake."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class LoadedSection:
    """One section read: its structures, the targets found in it, and ``frames``: which were chosen.

    ``frames`` are numbers in all of the section's file, or of its files one after the other. Where they stay on disk
    (``lazy``) the ``store`` has some of them only.
    """

    store: StructureStore
    targets: dict[str, TargetInfo]
    frames: Sequence[int]
    lazy: LazySection | None = None

    @property
    def file_names(self) -> list[str]:
        """The files, as they are named in messages."""
        return self.store.files if self.lazy is None else [self.lazy.file.path]


def read_section(
    section: DatasetSection,
    files: Files,
    remarks: Remarks,
    default_kind: str = "scalar",
    known: Mapping[str, TargetInfo] | None = None,
    also: Sequence[int] = (),
    only: Sequence[int] | None = None,
) -> LoadedSection:
    """Structures and labels of one section of the options.

    ``known`` targets tell what the section leaves unsaid: a type that is not given, names of classes.
    ``also`` are frames that are read besides those the section names, ``only`` those that are read instead.
    Adds lines for the log to ``remarks``. Raises DataError or OptionsError.
    """
    opened = SectionFiles(section, files, also, only)
    store = opened.file.packed(opened.chosen, opened.where)
    if not opened.file.checked:
        frames = [opened.structures[k] for k in opened.chosen]
        remarks.warnings += check_read(opened.where, frames, store, section.systems.length_unit)
    remarks.warnings += opened.assumed_units
    targets: dict[str, TargetInfo] = {}
    for name in section.targets:
        info = _info(opened, name, default_kind, known or {})
        info = replace(info, unit=opened.unit(name, info.unit))
        label = opened.target(name, info)
        store.labels[name] = _times_volume(label, store) if info.per_volume else label
        gradients = _add_gradients(store, name, info.unit, opened, remarks)
        if section.targets[name].energy_by_gradients:
            remarks.notes.append(f"'{name}' is taken for an energy: the options give it gradients")
        if gradients:
            store.labels[name] = opened.energy_of_derivatives(name, label, remarks.notes)
        elif info.is_energy:
            opened.say_which_energy(name, label, remarks.notes)
        targets[name] = replace(info, gradients=gradients)
        if info.is_energy:
            remarks.warnings += [
                f"{section.where('targets', name)}: {text}"
                for text in (
                    *gradient_warnings(store, name, info.unit, section.systems.length_unit),
                    *label_warnings(store, name),
                )
            ]
    for name in section.extra_data:
        label = opened.numbers("extra_data", name, opened.info("extra_data", name))
        if label.mask is not None:
            label = _without_gaps(store, name, label, section, remarks.notes)
        store.extra[name] = label
    for name in targets:
        _apply_mask(store, name, section)
    return LoadedSection(store, targets, opened.chosen)


def _add_gradients(
    store: StructureStore, name: str, unit: str, opened: SectionFiles, remarks: Remarks
) -> tuple[str, ...]:
    """Read what the options say of a target's gradients; gives those there are."""
    found = []
    kinds: tuple[GradientKind, ...] = ("forces", "stress", "virial")
    for kind in kinds:
        gradient = getattr(opened.section.targets[name], kind)
        if gradient is None:
            continue
        label = opened.gradient(name, kind, unit, remarks.notes)
        if label is not None:
            found.append("forces" if kind == "forces" else "strain")
            store.labels[f"{name}:{found[-1]}"] = label
        if not gradient.required:
            _remark(name, kind, opened, label is not None, remarks)
    return tuple(found)


def _remark(
    name: str, kind: GradientKind, opened: SectionFiles, found: bool, remarks: Remarks
) -> None:
    """Whether a gradient that need not be there was found, or else what looks like it."""
    path, others = opened.instead(name, kind)
    said = f"{kind} of '{name}' in '{path}': "
    key = getattr(opened.section.targets[name], kind).key
    if not found and kind != "forces" and key in others:
        remarks.notes.append(f"{said}left out, as no structure is periodic in all directions")
        return
    if found:
        remarks.notes.append(f"{said}found")
        return
    said += "not found, left out"
    if not others:
        spelt_out = opened.section.targets[name].spelt_out
        why = " (the options name it as metatrain does wherever there is an energy)"
        (remarks.warnings if spelt_out else remarks.notes).append(said + why * spelt_out)
        return
    beside = opened.section.targets[name].key.replace("energy", kind)
    other = nearest(beside, others) or others[0]
    remarks.warnings.append(f"{said}, but the file has {_advice(kind, other)}")


def _advice(kind: GradientKind, other: str) -> str:
    """What to write in the options to read a gradient under another name."""
    if "," in other:
        return f"the columns {other}: write them as one, {kind} (Properties=...:{kind}:R:3)"
    virial, stress = "virial" in other.lower(), "stress" in other.lower()
    really: GradientKind = kind if kind == "forces" else "virial" if virial else "stress"
    option = f"{really}: true" if other == really else f"{really}: {{key: {other}}}"
    if kind == "virial" and stress:
        option += " instead of virial"
    if kind == "forces" and "grad" in other.lower() and "force" not in other.lower():
        return f"'{other}': forces are minus the gradient, write them to the file with that sign"
    return f"'{other}': to take that, write {option}"


def find_classes(
    sections: Sequence[DatasetSection], files: Files, default_kind: str = "scalar"
) -> dict[str, TargetInfo]:
    """Classifications whose classes the options do not name, with those of the training set."""
    found: dict[str, TargetInfo] = {}
    for section in sections:
        opened = SectionFiles(section, files)
        for name in section.targets:
            info = _info(opened, name, default_kind, {})
            if not task_of(info.kind).classification or info.classes:
                continue
            classes = opened.classes(name, info)
            if name in found and set(classes) != set(found[name].classes):
                classes = _united(classes, found[name].classes)
            found[name] = task_of(info.kind).complete(replace(info, classes=classes))
    return found


def _united(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Classes of two sections, in the order they have in one."""
    names = {*first, *second}
    numbers = all(name.lstrip("-").isdigit() for name in names)
    return tuple(sorted(names, key=int) if numbers else sorted(names))


def _info(
    opened: SectionFiles, name: str, default_kind: str, known: Mapping[str, TargetInfo]
) -> TargetInfo:
    section = opened.section
    target, other = section.targets[name], known.get(name)
    declared = target.type.kind if target.type is not None else None
    if (
        other is not None
        and declared != other.kind
        and task_for(declared, other.kind, target.num_subtargets or 1).kind == other.kind
    ):
        return replace(other, gradients=(), unit=target.unit or other.unit)
    try:
        info = opened.info("targets", name, default_kind, other)
        if other is not None and other.kind == info.kind and not info.classes:
            info = task_of(info.kind).complete(replace(info, classes=other.classes))
    except TargetError as error:
        raise OptionsError(f"{section.where('targets', name)}: {error}") from None
    return info


def _without_gaps(
    store: StructureStore, name: str, label: Label, section: DatasetSection, notes: list[str]
) -> Label:
    """Extra data of which some are missing: a mask counts as 0 there, anything else is an error."""
    assert label.mask is not None
    rows = (~label.mask).any(1).nonzero().squeeze(1)
    if label.per_atom:
        rows = torch.unique(torch.searchsorted(store.offsets, rows, right=True) - 1)
    if name.removesuffix("_mask") not in section.targets:
        raise DataError(
            f"{section.where('extra_data', name)}: '{name}' is missing (or NaN) for {len(rows)} of "
            f"{len(store)} structures, the first being {store.origin(int(rows[0]))}; only masks "
            "may be missing: complete the data, or give what lacks it a default (default: 0)"
        )
    notes.append(
        f"'{name}' is missing for {len(rows)} of {len(store)} structures: where there is no mask, "
        "the target does not count"
    )
    return replace(label, mask=None)


def _times_volume(label: Label, store: StructureStore) -> Label:
    """Stress as volume times stress, masked where a structure is not periodic in all directions."""
    volume = volumes(store.cells).unsqueeze(1)
    periodic = store.pbc.all(1, keepdim=True).expand_as(label.values)
    return Label.where(label.values * volume, label.per_atom, periodic & label.there)


def _apply_mask(store: StructureStore, name: str, section: DatasetSection) -> None:
    """Leave out the entries of a target where extra data called ``<target>_mask`` are 0."""
    given = store.extra.get(f"{name}_mask")
    if given is None:
        return
    label = store.labels[name]
    shape = tuple(given.values.shape)
    if given.per_atom != label.per_atom or shape[1] not in (1, label.values.shape[1]):
        raise DataError(
            f"{section.where('extra_data', f'{name}_mask')}: the mask has shape {shape}, the "
            f"target {tuple(label.values.shape)}; give both the same sample_kind, and the mask "
            "one entry per sample or as many as the target"
        )
    mask = (given.values != 0).expand_as(label.values)
    values = torch.where(mask, label.values, 0.0)
    store.labels[name] = Label.where(values, label.per_atom, mask & label.there)
