"""From the sections of the options to training, validation and test stores."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from atomtrain.data.readers import Files
from atomtrain.data.sections import LoadedSection, find_classes, read_section
from atomtrain.data.splits import split_section
from atomtrain.data.statistics import statistics
from atomtrain.data.store import Label, StructureStore
from atomtrain.errors import DataError, OptionsError
from atomtrain.options import DatasetSection, Options
from atomtrain.sections.names import symbols
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.targets.layout import GRADIENTS


@dataclass
class Datasets:
    """What a training works on.

    ``splits`` are, for each training section, the frames of its file that went to training,
    validation and test (None where the set has files of its own). ``notes`` are lines for the log.
    """

    train: StructureStore
    validation: StructureStore
    test: StructureStore | None
    info: DatasetInfo
    splits: dict[str, list[list[int] | None]]
    notes: list[str] = field(default_factory=list)

    @property
    def sets(self) -> dict[str, StructureStore | None]:
        """All stores by the name people know them by; there need not be a test set."""
        return {"training": self.train, "validation": self.validation, "test": self.test}

    @property
    def fingerprint(self) -> str:
        """Hash of all structures and labels of the training set."""
        return fingerprint(self.train)

    def __len__(self) -> int:
        """Structures in all sets."""
        return sum(len(store) for store in self.sets.values() if store is not None)

    def statistics(self) -> list[str]:
        """Lines for the log: sizes, elements, the spread of each target."""
        return statistics(self.sets, self.info)


def build_datasets(options: Options, default_kind: str = "scalar") -> Datasets:
    """Read, check and split everything the options name.

    Raises DataError or OptionsError before anything long is done.
    """
    files = Files()
    notes: list[str] = []
    known = find_classes(options.training_set, files, default_kind)
    loaded = [
        read_section(section, files, notes, default_kind, known) for section in options.training_set
    ]
    parts: dict[str, list[LoadedSection]] = {"train": [], "validation": [], "test": []}
    splits: dict[str, list[list[int] | None]] = {"train": [], "validation": [], "test": []}
    own = {
        name: [s for s in given if isinstance(s, DatasetSection)]
        for name, given in (("validation", options.validation_set), ("test", options.test_set))
    }
    for k, part in enumerate(loaded):
        for name, chosen in split_section(options, k, len(part.store), own).items():
            if not chosen:
                splits[name].append(None if chosen is None else [])
                continue
            store = part.store.select(torch.tensor(chosen))
            assert store.origins is not None
            splits[name].append(store.origins[:, 1].tolist())
            parts[name].append(LoadedSection(store, part.targets))
    for name, sections in own.items():
        for section in sections:
            parts[name].append(read_section(section, files, notes, default_kind, known))
    if not parts["train"]:
        raise OptionsError(
            f"{options.source.where(('validation_set',))}: validation and test leave no structure "
            "to train on"
        )
    if not parts["validation"]:
        raise OptionsError(
            f"{options.source.where(('validation_set',))}: there is not a single structure to "
            "validate on; give a larger fraction or a number of structures"
        )

    targets = _merge_targets([part.targets for part in parts["train"]])
    if not targets:
        raise OptionsError(
            f"{options.source.where(('training_set',))}: there is no target to train on"
        )
    for name, part in ((n, p) for n in ("validation", "test") for p in parts[n]):
        _check_alike(name, targets, part.targets)
    extra = {k: v for p in parts["train"] for k, v in p.store.extra.items()}
    stores = {name: _concatenate(p, targets, extra, name) for name, p in parts.items() if p}
    types = _atomic_types(options, stores)
    unit = _length_unit(options)
    info = DatasetInfo(unit, types, targets)
    for name, store in stores.items():
        notes += [f"{name}: {line}" for line in _missing(store)]
    for name in targets:
        if not _has_values(stores["train"].labels[name]):
            raise DataError(f"target '{name}': not one label is left in the training set")
    for name, store in stores.items():
        if not any(_has_values(store.labels[target]) for target in targets):
            raise DataError(
                f"the {name} set has no label of any target it is there for ({', '.join(targets)})"
            )
    return Datasets(stores["train"], stores["validation"], stores.get("test"), info, splits, notes)


def fingerprint(store: StructureStore) -> str:
    """Hash of all structures and labels."""
    digest = hashlib.sha256()
    tensors = [store.positions, store.types, store.cells, store.pbc, store.offsets]
    for name in sorted(store.labels):
        label = store.labels[name]
        digest.update(name.encode())
        tensors += [label.values] + ([] if label.mask is None else [label.mask])
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _merge_targets(found: list[dict[str, TargetInfo]]) -> dict[str, TargetInfo]:
    """The targets of several sections; one that several have must look the same in all."""
    merged: dict[str, TargetInfo] = {}
    for targets in found:
        for name, info in targets.items():
            if name not in merged:
                merged[name] = info
                continue
            known = merged[name]
            if _essence(info) != _essence(known):
                raise OptionsError(
                    f"target '{name}' is described differently in two training sections (unit, "
                    "type, quantity and sizes must agree)"
                )
            either = {*known.gradients, *info.gradients}
            gradients = [g for g in GRADIENTS if g in either]
            merged[name] = replace(known, gradients=tuple(gradients))
    return merged


def _check_alike(name: str, train: dict[str, TargetInfo], other: dict[str, TargetInfo]) -> None:
    """A target means the same in every set; only its unit may be left unsaid."""
    for target, info in other.items():
        known = train.get(target)
        if known is None:
            continue
        if not info.unit or not known.unit:
            info = replace(info, unit=known.unit)
        if _essence(info) != _essence(known):
            raise OptionsError(
                f"target '{target}' is described differently in the training set and in the "
                f"{name} set (unit, type, quantity and sizes must agree)"
            )


def _essence(info: TargetInfo) -> TargetInfo:
    return replace(info, gradients=(), description="", unit=info.unit.lower())


def _has_values(label: Label) -> bool:
    return label.mask is None or bool(label.mask.any())


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
    keys = {target: (info.per_atom, info.width) for target, info in targets.items()}
    for target, info in targets.items():
        for gradient in info.gradients:
            keys[f"{target}:{gradient}"] = (gradient == "forces", 3 if gradient == "forces" else 9)
    labels = {}
    for key, (per_atom, width) in keys.items():
        values, masks = [], []
        for store in stores:
            rows = len(store.types) if per_atom else len(store)
            label = store.labels.get(key)
            present = label is not None
            values.append(
                label.values if label is not None else torch.zeros(rows, width, dtype=torch.float64)
            )
            masks.append(
                label.mask
                if label is not None and label.mask is not None
                else torch.full((rows, width), present)
            )
        mask = torch.cat(masks)
        labels[key] = Label(torch.cat(values), per_atom, None if bool(mask.all()) else mask)
    extras = {}
    for key, like in extra.items():
        found = [store.extra.get(key) for store in stores]
        for store, one in zip(stores, found, strict=True):
            if one is None or (one.per_atom, one.values.shape[1:]) != (
                like.per_atom,
                like.values.shape[1:],
            ):
                raise OptionsError(
                    f"extra data '{key}' must be given, in one form, for all of the training, "
                    f"validation and test data; '{store.files[0]}' ({name} set) differs"
                )
        given = [one for one in found if one is not None]
        extras[key] = Label(torch.cat([one.values for one in given]), like.per_atom)
    files: list[str] = []
    origins = []
    for store in stores:
        assert store.origins is not None
        origins.append(store.origins + torch.tensor([len(files), 0]))
        files += store.files
    counts = torch.cat([store.n_atoms for store in stores])
    return StructureStore(
        positions=torch.cat([s.positions for s in stores]),
        types=torch.cat([s.types for s in stores]),
        cells=torch.cat([s.cells for s in stores]),
        pbc=torch.cat([s.pbc for s in stores]),
        offsets=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        labels=labels,
        extra=extras,
        files=files,
        origins=torch.cat(origins),
    )


def _atomic_types(options: Options, stores: dict[str, StructureStore]) -> tuple[int, ...]:
    given = options.architecture.atomic_types
    train: Tensor = stores["train"].types
    types = tuple(sorted(set(train.tolist()))) if given is None else tuple(given)
    for name, store in stores.items():
        unknown = sorted(set(store.types.tolist()) - set(types))
        if unknown:
            said = "architecture.atomic_types lacks" if given else "the training set lacks"
            first = int(torch.isin(store.types, torch.tensor(unknown)).nonzero()[0])
            structure = int(torch.searchsorted(store.offsets, first, right=True)) - 1
            raise DataError(
                f"the {name} set contains {symbols(unknown)} ({store.origin(structure)}), which {said}; a "
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
