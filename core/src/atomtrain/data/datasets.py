"""From the sections of the options to training, validation and test stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from atomtrain.data.checks import set_warnings
from atomtrain.data.labels import SectionFiles
from atomtrain.data.readers import Files
from atomtrain.data.sections import LoadedSection, Remarks, find_classes, read_section
from atomtrain.data.splits import ranges, split_section
from atomtrain.data.store import Label, StructureStore, concatenated, fingerprint
from atomtrain.errors import DataError, OptionsError
from atomtrain.options import DatasetSection, Options
from atomtrain.sections.names import symbols
from atomtrain.targets import GRADIENT_NAMES, GRADIENTS, DatasetInfo, TargetInfo
from atomtrain.tasks import task_of

SHOWN = {"train": "training"}
"""sets whose name for people is another one"""
NOTHING = torch.empty(0, dtype=torch.int64)
"""no structure"""


@dataclass
class Datasets:
    """What a training works on.

    ``splits`` are, for each training section, the frames of its file, or of its files one after the
    other, that went to training, validation and test (None where the set has files of its own).
    ``validation`` is empty where the options want none.
    ``notes`` are lines for the log, ``warnings`` those of them that may be mistakes.
    """

    train: StructureStore
    validation: StructureStore
    test: StructureStore | None
    info: DatasetInfo
    splits: dict[str, list[list[int] | None]]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def sets(self) -> dict[str, StructureStore | None]:
        """All stores by the name people know them by; only a training set must be there."""
        validation = self.validation if self.validated else None
        return {"training": self.train, "validation": validation, "test": self.test}

    @property
    def validated(self) -> bool:
        """Whether there is a validation set."""
        return len(self.validation) > 0

    @property
    def fingerprint(self) -> str:
        """Hash of all structures and labels of the training set."""
        return fingerprint(self.train)

    def __len__(self) -> int:
        """Structures in all sets."""
        return sum(len(store) for store in self.sets.values() if store is not None)

    def statistics(self) -> list[str]:
        """Lines for the log: sizes, elements, the labels of each target in training."""
        sizes = ", ".join(f"{len(s)} {name}" for name, s in self.sets.items() if s is not None)
        elements = symbols(self.info.atomic_types, " ")
        lines = [f"structures: {sizes}; elements: {elements}"]
        for name, target in self.info.targets.items():
            label = self.train.labels[name]
            said = task_of(target.kind).describe_labels(label.values, label.mask, target)
            also = ", ".join(GRADIENT_NAMES[g] for g in target.gradients)
            if said:
                lines.append(f"target '{name}'{f' with {also}' if also else ''}: {said}")
        return lines


def build_datasets(options: Options, default_kind: str = "scalar") -> Datasets:
    """Read, check and split everything the options name.

    Raises DataError or OptionsError before anything long is done.
    """
    remarks = Remarks()
    parts, splits = _read(options, default_kind, remarks)
    targets = _merge_targets([part.targets for part in parts["train"]])
    if not targets:
        raise OptionsError(
            f"{options.source.where(('training_set',))}: there is no target to train on"
        )
    for name in ("validation", "test"):
        for part in parts[name]:
            for target, info in part.targets.items():
                known = targets.get(target, info)
                if not info.unit or not known.unit:  # it may be left unsaid
                    info = replace(info, unit=known.unit)
                _check_alike(info, known, f"in the training set and in the {name} set")
    extra = {k: v for p in parts["train"] for k, v in p.store.extra.items()}
    stores = {name: _concatenate(p, targets, extra, name) for name, p in parts.items() if p}
    data = DatasetInfo(_length_unit(options), _atomic_types(options, stores), targets)
    for name, store in stores.items():
        remarks.notes += [f"{name}: {line}" for line in _missing(store)]
    remarks.warnings += _check_labels(stores, list(targets))
    for name, store in stores.items():
        found = set_warnings(store, stores["train"])
        remarks.warnings += [f"{SHOWN.get(name, name)} set: {warning}" for warning in found]
    return Datasets(
        train=stores["train"],
        validation=stores["validation"]
        if "validation" in stores
        else stores["train"].select(NOTHING),
        test=stores.get("test"),
        info=data,
        splits=splits,
        notes=remarks.notes,
        warnings=remarks.warnings,
    )


def _read(
    options: Options, default_kind: str, remarks: Remarks
) -> tuple[dict[str, list[LoadedSection]], dict[str, list[list[int] | None]]]:
    """What makes up each set, and ``splits`` of :class:`Datasets`."""
    files = Files()
    known = find_classes(options.training_set, files, default_kind)

    def read(section: DatasetSection, also: Sequence[int] = ()) -> LoadedSection:
        return read_section(section, files, remarks, default_kind, known, also)

    parts: dict[str, list[LoadedSection]] = {"train": [], "validation": [], "test": []}
    splits: dict[str, list[list[int] | None]] = {"train": [], "validation": [], "test": []}
    for k, section in enumerate(options.training_set):
        opened = SectionFiles(section, files)
        own = opened.chosen
        split = split_section(options, k, len(opened.structures), own)
        named = {i for frames in split.values() for i in frames or ()}
        part = read(section, also=sorted(named.difference(own)))
        place = {frame: i for i, frame in enumerate(part.frames)}
        for name, frames in split.items():
            splits[name].append(frames)
            if frames:
                store = part.store.select(torch.tensor([place[i] for i in frames]))
                parts[name].append(LoadedSection(store, part.targets, frames))
    for name, sections in (("validation", options.validation_set), ("test", options.test_set)):
        parts[name] += [read(s) for s in sections if isinstance(s, DatasetSection)]
    remarks.notes += [_said(name, found) for name, found in parts.items() if found]
    if not parts["validation"]:
        remarks.notes.append("no validation set: the best model is the last one")
    remarks.notes = list(dict.fromkeys([*files.lines, *remarks.notes]))
    remarks.warnings = list(dict.fromkeys([*files.warnings, *remarks.warnings]))
    return parts, splits


def _said(name: str, parts: Sequence[LoadedSection]) -> str:
    """Which structures make up a set, for the log."""
    said = []
    for part in parts:
        first, *others = part.store.files
        file = f"'{first}'" + (f" and {len(others)} more" if others else "")
        said.append(f"{ranges(part.frames)} of {file}")
    return f"{SHOWN.get(name, name)} set: structures {', '.join(said)} (counted from 0)"


def _merge_targets(found: list[dict[str, TargetInfo]]) -> dict[str, TargetInfo]:
    """The targets of several sections; one that several have must look the same in all."""
    merged: dict[str, TargetInfo] = {}
    for targets in found:
        for name, info in targets.items():
            known = merged.setdefault(name, info)
            _check_alike(info, known, "in two training sections")
            either = {*known.gradients, *info.gradients}
            merged[name] = replace(known, gradients=tuple(g for g in GRADIENTS if g in either))
    return merged


def _check_alike(info: TargetInfo, known: TargetInfo, where: str) -> None:
    """A target means the same wherever it is."""
    ours, theirs = ([block.n_properties for block in i.blocks] for i in (info, known))
    if ours != theirs and len(ours) == len(theirs):
        first, second = (", ".join(map(str, counts)) for counts in (theirs, ours))
        raise OptionsError(
            f"target '{info.name}' has different numbers of properties {where} ({first}, and {second}; in order of "
            "its blocks). They are what the options say (num_subtargets, num) or else what the files have: "
            "correct whichever is wrong"
        )
    if _essence(info) != _essence(known):
        raise OptionsError(
            f"target '{info.name}' is described differently {where} (unit, type, quantity and sizes "
            "must agree)"
        )


def _essence(info: TargetInfo) -> TargetInfo:
    return replace(info, gradients=(), description="", unit=info.unit.lower())


def _check_labels(stores: Mapping[str, StructureStore], targets: list[str]) -> list[str]:
    """There must be labels of every target to train on, and of some in every set.

    Gives warnings of targets that are trained on but not validated.
    """
    there = {
        part: [name for name in targets if bool(store.labels[name].there.any())]
        for part, store in stores.items()
    }
    for name in targets:
        if name not in there["train"]:
            raise DataError(f"target '{name}': not one label is left in the training set")
    for part, found in there.items():
        if not found:
            raise DataError(
                f"the {part} set has no label of any target it is there for ({', '.join(targets)})"
            )
    return [
        f"validation set: there is no label of '{name}': the best model is chosen without it"
        for name in targets
        if name not in there.get("validation", targets)
    ]


def _concatenate(
    parts: list[LoadedSection],
    targets: dict[str, TargetInfo],
    extra: dict[str, Label],
    name: str,
) -> StructureStore:
    """One store of several; labels a part does not have are masked there.

    Extra data cannot be masked, so every part must have what the training set has (``extra``).
    """
    stores = [part.store for part in parts]
    rows = {key: shape for target in targets.values() for key, shape in target.label_rows.items()}
    labels = {
        key: Label.joined([store.labels.get(key) or store.no_label(*shape) for store in stores])
        for key, shape in rows.items()
    }
    for key, like in extra.items():
        for store in stores:
            one = store.extra.get(key)
            if one is None or _form(one) != _form(like):
                raise OptionsError(
                    f"extra data '{key}' must be given, in one form, for all of the training, "
                    f"validation and test data; '{store.files[0]}' ({name} set) differs"
                )
    extras = {key: Label.joined([store.extra[key] for store in stores]) for key in extra}
    return concatenated(stores, labels, extras)


def _form(label: Label) -> tuple[bool, int]:
    return label.per_atom, label.values.shape[1]


def _atomic_types(options: Options, stores: dict[str, StructureStore]) -> tuple[int, ...]:
    given = options.architecture.atomic_types
    train: Tensor = stores["train"].types
    types = tuple(sorted(set(train.tolist()))) if given is None else tuple(given)
    for name, store in stores.items():
        unknown = sorted(set(store.types.tolist()) - set(types))
        if unknown:
            said = "architecture.atomic_types lacks" if given else "the training set lacks"
            where = store.origin(store.first_with(unknown))
            raise DataError(
                f"the {name} set contains {symbols(unknown)} ({where}), which {said}; a "
                "model cannot predict elements it never saw"
            )
    return types


def _length_unit(options: Options) -> str:
    sections = [*options.training_set, *options.validation_set, *options.test_set]
    units = {s.systems.length_unit.lower() for s in sections if isinstance(s, DatasetSection)}
    units = {"angstrom" if unit in ("a", "ang", "ångström") else unit for unit in units}
    if len(units) > 1:
        raise OptionsError(
            f"length units differ between sections ({', '.join(sorted(units))}); convert the "
            "files to one"
        )
    return units.pop()


def _missing(store: StructureStore) -> list[str]:
    lines = []
    for key, label in store.labels.items():
        if label.mask is not None:
            rows = int((~label.mask).any(1).sum())
            what = "atoms" if label.per_atom else "structures"
            name = key.replace(":strain", " (stress)").replace(":forces", " (forces)")
            lines.append(f"{name} is masked for {rows} of {len(label.mask)} {what}")
    return lines
