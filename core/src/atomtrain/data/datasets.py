"""From the sections of the options to training, validation and test stores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from atomtrain.data.labels import gradient_label, target_label
from atomtrain.data.readers import Files, Frame
from atomtrain.data.store import Label, StructureStore
from atomtrain.errors import DataError, OptionsError, TargetError
from atomtrain.targets import DatasetInfo, TargetInfo

if TYPE_CHECKING:
    from atomtrain.options import DatasetSection, Options


@dataclass
class Datasets:
    """What a training works on.

    ``splits`` are the frames of each training section that went to training, validation and test
    (None where the set has files of its own). ``notes`` are lines for the log.
    """

    train: StructureStore
    validation: StructureStore
    test: StructureStore | None
    info: DatasetInfo
    splits: dict[str, list[list[int] | None]]
    notes: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Hash of all structures and labels of the training set."""
        return fingerprint(self.train)


@dataclass
class _Loaded:
    """One section read: its structures, and the targets found in it."""

    store: StructureStore
    targets: dict[str, TargetInfo]


def build_datasets(options: Options, default_kind: str = "scalar") -> Datasets:
    """Read, check and split everything the options name.

    Raises DataError or OptionsError before anything long is done.
    """
    files = Files()
    notes: list[str] = []
    loaded = [
        read_section(section, files, notes, default_kind) for section in options.training_set
    ]
    parts = {"train": [], "validation": [], "test": []}  # type: dict[str, list[_Loaded]]
    splits: dict[str, list[list[int] | None]] = {"train": [], "validation": [], "test": []}
    own = {
        name: [s for s in sections if hasattr(s, "systems")]
        for name, sections in (
            ("validation", options.validation_set),
            ("test", options.test_set),
        )
    }
    for k, section in enumerate(loaded):
        split = _split(options, k, len(section.store), own)
        for name, frames in split.items():
            splits[name].append(frames)
            if frames:
                parts[name].append(
                    _Loaded(section.store.select(torch.tensor(frames)), section.targets)
                )
    for name, sections in own.items():
        for section in sections:
            parts[name].append(read_section(section, files, notes, default_kind))
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
    stores = {name: _concatenate(found, targets) for name, found in parts.items() if found}
    types = _atomic_types(options, stores)
    unit = _length_unit(options)
    info = DatasetInfo(unit, types, targets)
    for name, store in stores.items():
        notes += [f"{name}: {line}" for line in _missing(store)]
    for name in targets:
        label = stores["train"].labels[name]
        if label.mask is not None and not bool(label.mask.any()):
            raise DataError(f"target '{name}': not one label is left in the training set")
    return Datasets(
        stores["train"], stores["validation"], stores.get("test"), info, splits, notes
    )


def read_section(
    section: DatasetSection, files: Files, notes: list[str], default_kind: str = "scalar"
) -> _Loaded:
    """Structures and labels of one section of the options."""
    from atomtrain.options import read_indices, target_info

    where = section.where("systems", "read_from")
    frames = files.frames(section.systems.read_from, section.systems.reader, where)
    chosen: Sequence[int] = range(len(frames))
    if section.indices is not None:
        chosen = read_indices(section.where("indices"), section.indices)
        _check_indices(chosen, len(frames), section.where("indices"))
    _check_structures(frames, chosen, section.systems.read_from, where)
    store = _structures(frames, chosen, section.systems.read_from)
    targets: dict[str, TargetInfo] = {}
    for name, target in section.targets.items():
        try:
            info = target_info(name, target, default_kind)
        except TargetError as error:
            raise OptionsError(f"{section.where('targets', name)}: {error}") from None
        store.labels[name] = target_label(files, section, name, target, info, frames, chosen)
        gradients = []
        for kind in ("forces", "stress", "virial"):
            gradient = getattr(target, kind)
            if gradient is None:
                continue
            label = gradient_label(files, section, name, kind, gradient, frames, chosen)
            key = "forces" if kind == "forces" else "strain"
            if label is not None:
                store.labels[f"{name}:{key}"] = label
                gradients.append(key)
            if not gradient.required:
                verdict = "found, trained on" if label is not None else "not found, left out"
                notes.append(f"{kind} of '{name}' in '{gradient.read_from}': {verdict}")
        targets[name] = replace(info, gradients=tuple(gradients))
    for name, extra in section.extra_data.items():
        info = target_info(name, extra, default_kind)
        store.extra[name] = target_label(files, section, name, extra, info, frames, chosen)
    return _Loaded(store, targets)


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


def _structures(frames: Sequence[Frame], chosen: Sequence[int], file: str) -> StructureStore:
    picked = [frames[k] for k in chosen]
    counts = np.cumsum([0] + [len(f.numbers) for f in picked])
    return StructureStore(
        positions=torch.from_numpy(np.concatenate([f.positions for f in picked])),
        types=torch.from_numpy(np.concatenate([f.numbers for f in picked])),
        cells=torch.from_numpy(
            # a cell vector means nothing along a direction that is not periodic
            np.stack([np.where(f.pbc[:, None], f.cell, 0.0) for f in picked])
        ),
        pbc=torch.from_numpy(np.stack([f.pbc for f in picked])),
        offsets=torch.from_numpy(counts),
        files=[file],
        origins=torch.tensor([[0, k] for k in chosen], dtype=torch.int64),
    )


def _check_structures(
    frames: Sequence[Frame], chosen: Sequence[int], file: str, where: str
) -> None:
    for k in chosen:
        frame = frames[k]
        if len(frame.numbers) == 0:
            raise DataError(f"{where}: frame {k} of '{file}' has no atoms")
        if not np.isfinite(frame.positions).all():
            raise DataError(f"{where}: positions in frame {k} of '{file}' are not finite")
        if frame.numbers.min() < 1:
            raise DataError(f"{where}: frame {k} of '{file}' has atoms of unknown element ('X')")
        if frame.pbc.any():
            lengths = np.linalg.norm(frame.cell, axis=1)
            flat = bool((lengths[frame.pbc] < 1e-6).any())
            if flat or (frame.pbc.all() and abs(np.linalg.det(frame.cell)) < 1e-6):
                raise DataError(
                    f"{where}: frame {k} of '{file}' is periodic but has no cell along a periodic "
                    "direction; give it a cell or set its pbc to false"
                )


def _check_indices(indices: Sequence[int], n: int, where: str) -> None:
    bad = [k for k in indices if not 0 <= k < n]
    if bad:
        raise OptionsError(f"{where}: there is no structure {bad[0]} (they are 0 to {n - 1})")
    if len(set(indices)) != len(indices):
        raise OptionsError(f"{where}: some indices are given twice")
    if not indices:
        raise OptionsError(f"{where}: the list of indices is empty")


def _split(
    options: Options, k: int, n: int, own: dict[str, list[DatasetSection]]
) -> dict[str, list[int] | None]:
    """Frames of training section ``k`` for each set, ascending; drawn by the seed."""
    from atomtrain.options import read_indices

    free = np.random.default_rng([options.seed, k]).permutation(n)
    result: dict[str, list[int] | None] = {"validation": None, "test": None}
    taken: set[int] = set()
    wanted: dict[str, int] = {}
    for name in ("test", "validation"):
        sections = options.test_set if name == "test" else options.validation_set
        if own[name] or not sections:
            continue
        part = sections[k]
        where = options.source.where((f"{name}_set", k))
        if isinstance(part, (int, float)):
            count = part if isinstance(part, int) else round(part * n)
            if count == 0 and (name == "validation" or part != 0):
                raise OptionsError(
                    f"{where}: {part:g} of {n} structures leaves nothing for the {name} set; "
                    "give a larger fraction or a number of structures"
                )
            if count > n:
                raise OptionsError(f"{where}: {count} asked for, there are {n} structures")
            wanted[name] = count
        else:
            indices = read_indices(where, part.indices)  # type: ignore[union-attr]
            _check_indices(indices, n, where)
            both = taken.intersection(indices)
            if both:
                raise OptionsError(
                    f"{where}: structure {min(both)} is in the validation set and in the test set"
                )
            taken.update(indices)
            result[name] = sorted(indices)
    rest = [int(i) for i in free if int(i) not in taken]
    for name, count in wanted.items():
        result[name] = sorted(rest[:count])
        rest = rest[count:]
    if not rest:
        raise OptionsError(
            f"{options.source.where(('training_set', k))}: validation and test take all {n} "
            "structures, nothing is left to train on"
        )
    result["train"] = sorted(rest)
    return result


def _merge_targets(found: list[dict[str, TargetInfo]]) -> dict[str, TargetInfo]:
    """The targets of several sections; one that several have must look the same in all."""
    merged: dict[str, TargetInfo] = {}
    for targets in found:
        for name, info in targets.items():
            if name not in merged:
                merged[name] = info
                continue
            known = merged[name]
            if replace(info, gradients=(), description="") != replace(
                known, gradients=(), description=""
            ):
                raise OptionsError(
                    f"target '{name}' is described differently in two training sections (unit, "
                    "type, quantity and sizes must agree)"
                )
            gradients = [g for g in ("forces", "strain") if g in {*known.gradients, *info.gradients}]
            merged[name] = replace(known, gradients=tuple(gradients))
    return merged


def _concatenate(parts: list[_Loaded], targets: dict[str, TargetInfo]) -> StructureStore:
    """One store of several; labels a part does not have are masked there."""
    stores = [part.store for part in parts]
    keys = {name: (info.per_atom, info.width) for name, info in targets.items()}
    for name, info in targets.items():
        for gradient in info.gradients:
            keys[f"{name}:{gradient}"] = (gradient == "forces", 3 if gradient == "forces" else 9)
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
        files=files,
        origins=torch.cat(origins),
    )


def _atomic_types(options: Options, stores: dict[str, StructureStore]) -> tuple[int, ...]:
    from ase.data import chemical_symbols

    given = options.architecture.atomic_types
    train: Tensor = stores["train"].types
    types = tuple(sorted(set(train.tolist()))) if given is None else tuple(given)
    for name, store in stores.items():
        unknown = sorted(set(store.types.tolist()) - set(types))
        if unknown:
            symbols = ", ".join(chemical_symbols[z] for z in unknown)
            said = "architecture.atomic_types lacks" if given else "the training set lacks"
            first = int(torch.isin(store.types, torch.tensor(unknown)).nonzero()[0])
            structure = int(torch.searchsorted(store.offsets, first, right=True)) - 1
            raise DataError(
                f"the {name} set contains {symbols} ({store.origin(structure)}), which {said}; a "
                "model cannot predict elements it never saw"
            )
    return types


def _length_unit(options: Options) -> str:
    sections = [
        *options.training_set,
        *(s for s in (*options.validation_set, *options.test_set) if hasattr(s, "systems")),
    ]
    units = {s.systems.length_unit.lower() for s in sections}  # type: ignore[union-attr]
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
