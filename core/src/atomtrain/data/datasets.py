"""From the sections of the options to training, validation and test stores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from atomtrain.data.checks import set_warnings
from atomtrain.data.consistency import forces_warning, trajectory_warning
from atomtrain.data.labels import SectionFiles
from atomtrain.data.readers import Files, StoreFile
from atomtrain.data.readers.base import DataFile
from atomtrain.data.sections import LoadedSection, Remarks, find_classes, read_section
from atomtrain.data.splits import ranges, split_section
from atomtrain.data.store import Label, StructureStore, concatenated
from atomtrain.data.streamed import LazySection, StreamedStore, Structures, bytes_in_memory
from atomtrain.errors import DataError, OptionsError
from atomtrain.options import DatasetSection, Options, SplitSection
from atomtrain.options.options import PartOf
from atomtrain.sections.names import symbols
from atomtrain.targets import GRADIENT_NAMES, GRADIENTS, DatasetInfo, TargetInfo
from atomtrain.tasks import task_of

SHOWN = {"train": "training"}
"""sets whose name for people is another one"""
NOTHING = torch.empty(0, dtype=torch.int64)
"""no structure"""
LOOKED_AT = 1000
"""structures of a data set on disk that tell what its targets are"""


@dataclass
class Datasets:
    """What a training works on.

    ``splits`` are, for each training section, the frames of its file, or of its files one after the
    other, that went to training, validation and test (None where the set has files of its own).
    ``validation`` is empty where the options want none.
    ``notes`` are lines for the log, ``warnings`` those of them that may be mistakes.
    """

    train: Structures
    validation: Structures
    test: Structures | None
    info: DatasetInfo
    splits: dict[str, list[list[int] | None]]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def sets(self) -> dict[str, Structures | None]:
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
        return self.train.fingerprint

    def __len__(self) -> int:
        """Structures in all sets."""
        return sum(len(store) for store in self.sets.values() if store is not None)

    def statistics(self) -> list[str]:
        """Lines for the log: sizes, elements, the labels of each target in training."""
        sizes = ", ".join(f"{len(s)} {name}" for name, s in self.sets.items() if s is not None)
        elements = symbols(self.info.atomic_types, " ")
        lines = [f"structures: {sizes}; elements: {elements}"]
        sample = self.train.sample
        for name, target in self.info.targets.items():
            label = sample.labels[name]
            said = task_of(target.kind).describe_labels(label.values, label.mask, target)
            also = ", ".join(GRADIENT_NAMES[g] for g in target.gradients)
            if said:
                lines.append(f"target '{name}'{f' with {also}' if also else ''}: {said}")
        return lines


def build_datasets(
    options: Options, default_kind: str = "scalar", memory_budget: float = math.inf
) -> Datasets:
    """Read, check and split everything the options name.

    Data sets on disk that are larger than half of the ``memory_budget`` (bytes) are not read as a whole. Raises
    DataError or OptionsError before anything long is done.
    """
    remarks = Remarks()
    parts, splits, window = _read(options, default_kind, remarks, memory_budget)
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
    stores = {
        name: _set_of(p, partial(joined, targets=targets, extra=extra, name=name), window)
        for name, p in parts.items()
        if p
    }
    data = DatasetInfo(_length_unit(options), _atomic_types(options, stores), targets)
    samples = {name: store.sample for name, store in stores.items()}
    for name, store in samples.items():
        if isinstance(stores[name], StreamedStore):
            remarks.notes.append(
                f"{SHOWN.get(name, name)} set: {len(stores[name])} structures stay on disk (memory_budget), about "
                f"{window} are in memory at a time; composition, scale and checks are of {len(store)} of them"
            )
        remarks.notes += [f"{name}: {line}" for line in _missing(store)]
    remarks.warnings += _check_labels(samples, list(targets))
    for name, store in samples.items():
        found = set_warnings(store, samples["train"])
        remarks.warnings += [f"{SHOWN.get(name, name)} set: {warning}" for warning in found]
    if any(_at_random(part) for part in (*options.validation_set, *options.test_set)):
        said = trajectory_warning(samples["train"], data.length_unit)
        remarks.warnings += [f"training set: {said}"] * bool(said)
    for key, energy in targets.items():
        if "forces" in energy.gradients:
            said = forces_warning(samples["train"], key, energy.unit, data.length_unit)
            remarks.warnings += [f"training set: '{key}': {said}"] * bool(said)
    return Datasets(
        train=stores["train"],
        validation=stores["validation"]
        if "validation" in stores
        else samples["train"].select(NOTHING),
        test=stores.get("test"),
        info=data,
        splits=splits,
        notes=remarks.notes,
        warnings=remarks.warnings,
    )


def read_aside(
    section: DatasetSection, default_kind: str, info: DatasetInfo
) -> tuple[StructureStore, dict[str, TargetInfo]]:
    """One section, to be looked at by a model of these targets: its structures, and the targets they have.

    Raises DataError or OptionsError, also where targets or the length unit are others than the model's.
    """
    remarks = Remarks()
    found = read_section(section, Files(), remarks, default_kind, info.targets)
    unit = _unit_of(section)
    if unit != info.length_unit:
        raise OptionsError(
            f"{section.where('systems', 'length_unit')}: is '{unit}', and the model's is '{info.length_unit}'"
        )
    for name, target in found.targets.items():
        if name in info.targets:
            _check_alike(target, info.targets[name], "in the training set and in the old data")
    return found.store, found.targets


def _at_random(part: PartOf) -> bool:
    """Whether a set is drawn from the training sections at random."""
    if isinstance(part, SplitSection):
        return part.by == "random"
    return isinstance(part, (int, float)) and part > 0


def _read(
    options: Options, default_kind: str, remarks: Remarks, memory_budget: float
) -> tuple[dict[str, list[LoadedSection]], dict[str, list[list[int] | None]], int]:
    """What makes up each set, ``splits`` of :class:`Datasets`, and how many structures may be in memory."""
    files = Files()
    known = find_classes(options.training_set, files, default_kind)
    large, window = _too_large(options, files, memory_budget)

    def read(section: DatasetSection, also: Sequence[int] = ()) -> LoadedSection:
        opened = SectionFiles(section, files)
        if opened.file not in large:
            return read_section(section, files, remarks, default_kind, known, also)
        frames = np.array([*opened.chosen, *also], dtype=np.int64)
        some = frames[np.linspace(0, len(frames) - 1, min(LOOKED_AT, len(frames))).astype(int)]
        found = read_section(section, files, remarks, default_kind, known, only=some)
        assert isinstance(opened.file, StoreFile)
        _check_extra(section, files, frames)
        lazy = LazySection(section, files, opened.file, frames, default_kind, found.targets)
        return replace(found, lazy=lazy, frames=frames.tolist())

    parts: dict[str, list[LoadedSection]] = {"train": [], "validation": [], "test": []}
    splits: dict[str, list[list[int] | None]] = {"train": [], "validation": [], "test": []}
    for k, section in enumerate(options.training_set):
        opened = SectionFiles(section, files)
        own = opened.chosen
        split = split_section(options, k, len(opened.structures), own, opened.together)
        named = {i for frames in split.values() for i in frames or ()}
        part = read(section, also=sorted(named.difference(own)))
        place = {} if part.lazy else {frame: i for i, frame in enumerate(part.frames)}
        for name, frames in split.items():
            splits[name].append(frames)
            if not frames:
                continue
            if part.lazy is not None:
                parts[name].append(replace(part, lazy=part.lazy.of(frames), frames=frames))
                continue
            store = part.store.select(torch.tensor([place[i] for i in frames]))
            parts[name].append(LoadedSection(store, part.targets, frames))
    for name, sections in (("validation", options.validation_set), ("test", options.test_set)):
        parts[name] += [read(s) for s in sections if isinstance(s, DatasetSection)]
    remarks.notes += [_said(name, found) for name, found in parts.items() if found]
    if not parts["validation"]:
        remarks.notes.append("no validation set: the best model is the last one")
    remarks.notes = list(dict.fromkeys([*files.lines, *remarks.notes]))
    remarks.warnings = list(dict.fromkeys([*files.warnings, *remarks.warnings]))
    return parts, splits, window


def _check_extra(section: DatasetSection, files: Files, frames: np.ndarray) -> None:
    """Raise DataError unless the extra data are there for all ``frames``: a training is to find no gap on its way.

    Those of structures, which are few numbers, are read for it.
    """
    opened = SectionFiles(section, files, only=frames.tolist())
    for name, extra in section.extra_data.items():
        if not extra.per_atom and not extra.allow_missing:
            opened.numbers("extra_data", name, opened.info("extra_data", name))


def _too_large(options: Options, files: Files, memory_budget: float) -> tuple[set[DataFile], int]:
    """Data sets on disk that stay there, and how many structures of them may be in memory."""
    sections = [*options.training_set, *options.validation_set, *options.test_set]
    found = {SectionFiles(s, files).file for s in sections if isinstance(s, DatasetSection)}
    stored = {file: bytes_in_memory(file) for file in found if isinstance(file, StoreFile)}
    total, half = sum(stored.values()), memory_budget / 2
    if total <= half:
        return set(), 0
    structures = sum(len(file.frames) for file in stored)
    return set(stored), max(1, int(half * structures / total))


def _set_of(
    parts: list[LoadedSection],
    join: Callable[[Sequence[StructureStore]], StructureStore],
    window: int,
) -> Structures:
    """The sections of a set as one: read, if all of them are."""
    if any(part.lazy is not None for part in parts):
        return StreamedStore([part.lazy or part.store for part in parts], join, window)
    return join([part.store for part in parts])


def _said(name: str, parts: Sequence[LoadedSection]) -> str:
    """Which structures make up a set, for the log."""
    said = []
    for part in parts:
        first, *others = part.file_names
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


def joined(
    stores: Sequence[StructureStore],
    targets: dict[str, TargetInfo],
    extra: dict[str, Label],
    name: str,
) -> StructureStore:
    """One store of several; labels a part does not have are masked there.

    Extra data cannot be masked, so every part must have what the training set has (``extra``).
    """
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


def _atomic_types(options: Options, stores: Mapping[str, Structures]) -> tuple[int, ...]:
    given = options.architecture.atomic_types
    types = tuple(stores["train"].elements) if given is None else tuple(given)
    for name, store in stores.items():
        unknown = sorted(set(store.elements) - set(types))
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
    units = {_unit_of(s) for s in sections if isinstance(s, DatasetSection)}
    if len(units) > 1:
        raise OptionsError(
            f"length units differ between sections ({', '.join(sorted(units))}); convert the "
            "files to one"
        )
    return units.pop()


def _unit_of(section: DatasetSection) -> str:
    """Its length unit by the name that models have it under."""
    unit = section.systems.length_unit.lower()
    return "angstrom" if unit in ("a", "ang", "ångström") else unit


def _missing(store: StructureStore) -> list[str]:
    lines = []
    for key, label in store.labels.items():
        if label.mask is not None:
            rows = int((~label.mask).any(1).sum())
            what = "atoms" if label.per_atom else "structures"
            name = key.replace(":strain", " (stress)").replace(":forces", " (forces)")
            lines.append(f"{name} is masked for {rows} of {len(label.mask)} {what}")
    return lines
