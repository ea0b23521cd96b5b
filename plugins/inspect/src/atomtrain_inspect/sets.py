"""What is looked at: structures of files, or of the sets that options make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atomtrain.data import Files, Label, Remarks, StructureStore, build_datasets, read_section
from atomtrain.data.consistency import in_files, kinds
from atomtrain.data.readers import Reading, paths_of
from atomtrain.data.store import concatenated
from atomtrain.errors import OptionsError
from atomtrain.options import DatasetSection, check_units
from atomtrain.runs.plan import plan
from atomtrain.targets import GRADIENTS, TargetInfo
from atomtrain.targets.units import conversion
from atomtrain_inspect.finding import SHOWN, Finding, Place, Severity

MOST_STRUCTURES, MOST_ATOMS = 10_000, 400_000
"""looked at; of files with more a sample of runs of neighbouring frames, from all over the file"""
RUN = 5
"""frames that follow one another in a sample"""


@dataclass
class Looked:
    """Structures in the order of their files, which of ``sets`` each is in, and energies with what is said of them.

    ``store.labels`` have the energies ``targets`` and their gradients. ``said``: what reading told, ``samples``: of
    what only a part is looked at.
    """

    store: StructureStore
    sets: list[str]
    member: np.ndarray
    targets: dict[str, TargetInfo]
    length_unit: str
    options: bool
    said: list[Finding] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.store)

    @cached_property
    def angstrom(self) -> float:
        """The unit of length in angstrom."""
        return conversion(self.length_unit or "angstrom", "angstrom")

    @cached_property
    def order(self) -> tuple[np.ndarray, np.ndarray]:
        """The file and the frame of each structure, [n] each."""
        _, files, frames = in_files(self.store)
        return files, frames

    def place(self, structure: int) -> Place:
        """Where a structure is."""
        assert self.store.origins is not None
        file, frame = self.store.origins[structure].tolist()
        return self.store.files[file], frame

    def named(self, structure: int) -> str:
        """``structure 3 of 'a.xyz'``, for sentences."""
        return self.store.origin(structure)

    def finding(
        self,
        check: str,
        severity: Severity,
        structures: Iterable[int],
        what: str,
        advice: str,
        details: Sequence[str] = (),
        of: str = "",
    ) -> Finding:
        """``2 of 60 structures <what> (structure 3 of 'a.xyz': <detail>; ...); <advice>``."""
        rows = list(structures)
        shown = [
            self.named(k) + (f": {details[n]}" if n < len(details) else "")
            for n, k in enumerate(rows[:SHOWN])
        ]
        more = "; ..." if len(rows) > SHOWN else ""
        text = f"{len(rows)} of {of or len(self)} structures {what} ({'; '.join(shown)}{more}); {advice}"
        return Finding(check, severity, text, [self.place(k) for k in rows])

    @cached_property
    def kind(self) -> np.ndarray:
        """A number for each sequence of elements, [n]."""
        return kinds(self.store)

    @cached_property
    def composition(self) -> np.ndarray:
        """A number for each composition, [n]."""
        types, bounds, pbc = self.store.types.numpy(), self.store.offsets.tolist(), self.store.pbc
        known: dict[bytes, int] = {}
        keys = [
            np.sort(types[a:b]).tobytes() + pbc[k].numpy().tobytes()
            for k, (a, b) in enumerate(pairwise(bounds))
        ]
        return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


# -- files ---------------------------------------------------------------------------------------


def of_files(
    paths: Sequence[str],
    *,
    reader: str | None = None,
    format: str = "",
    length_unit: str = "angstrom",
    unit: str = "",
    keys: dict[str, str] | None = None,
    reading: Reading | None = None,
    files: Files | None = None,
) -> Looked:
    """All structures of some files, each a set. Energies are looked for under their usual names.

    ``keys`` says what ``energy``, ``forces``, ``stress`` or ``virial`` are called; ``reading`` is more than a
    ``format``; ``files`` are those that are open. Raises DataError for what cannot be read.
    """
    files = files or Files()
    reading = reading or Reading(format=format)
    stores: list[StructureStore] = []
    sets: list[str] = []
    said: list[Finding] = []
    samples: list[str] = []
    infos: dict[str, TargetInfo] = {}
    for path in paths_of(list(paths), reader, "inspect"):
        systems = {
            "read_from": path,
            "length_unit": length_unit,
            "format": reading.format,
            "types": dict(reading.types),
            "unconverged": reading.unconverged,
        }
        file = files.structures(path, reader, "inspect", reading)
        found = keys_of(file.keys, file.resembling("forces"), file.resembling("stress"), keys or {})
        targets: dict[str, Any] = {}
        if "energy" in found:
            gradients = {
                kind: {"key": found[kind], "required": kind in (keys or {}), "allow_missing": True}
                for kind in ("forces", "stress", "virial")
                if kind in found
            }
            target: dict[str, Any] = {"key": found["energy"], "unit": unit, "allow_missing": True}
            targets["energy"] = {**target, **gradients}
            if "virial" in found:
                targets["energy"]["stress"] = False
        section = DatasetSection.model_validate(
            {"systems": {**systems, "reader": reader}, "targets": targets}
        )
        check_units([section])
        chosen = sample(len(file.frames), _atoms(file.frames))
        remarks = Remarks()
        only = None if chosen is None else chosen.tolist()
        loaded = read_section(section, files, remarks, only=only)
        if chosen is not None:
            samples.append(
                f"{len(chosen)} of {len(file.frames)} structures of '{path}', in runs of {RUN} from all over it"
            )
        said += [Finding("reading", "warning", text) for text in remarks.warnings]
        stores.append(loaded.store)
        sets.append(path)
        for name, info in loaded.targets.items():
            either = {*info.gradients, *(infos[name].gradients if name in infos else ())}
            infos[name] = replace(info, gradients=tuple(g for g in GRADIENTS if g in either))
    said += [Finding("reading", "warning", text) for text in files.warnings]
    return _looked(stores, sets, infos, length_unit, False, said, samples)


def _atoms(frames: Sequence[Any]) -> float:
    """Atoms of a structure, in the mean of some."""
    some = np.unique(np.linspace(0, len(frames) - 1, min(20, len(frames))).astype(int))
    return float(np.mean([len(frames[k].numbers) for k in some.tolist()]))


def sample(n: int, atoms: float) -> np.ndarray | None:
    """Which of ``n`` structures with so many ``atoms`` each are looked at, ascending; None: all."""
    most = min(MOST_STRUCTURES, max(500, int(MOST_ATOMS / max(atoms, 1.0))))
    if n <= most:
        return None
    starts = np.linspace(0, n - RUN, most // RUN).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(RUN))


_ENERGIES = ("energy", "ref_energy", "dft_energy", "total_energy", "free_energy", "e", "u0", "u")


def keys_of(
    known: set[str], forces: Sequence[str], stresses: Sequence[str], given: dict[str, str]
) -> dict[str, str]:
    """What energy, forces and stress are called in a file that has these keys, or as ``given``."""
    by_name = {key.lower(): key for key in sorted(known)}
    found: dict[str, str] = {}
    usual = [by_name[name] for name in _ENERGIES if name in by_name]
    usual += [by_name[name] for name in by_name if name.endswith("energy")]
    if usual:
        found["energy"] = usual[0]
    for kind, others in (("forces", forces), ("stress", stresses)):
        likely = [key for key in others if "," not in key and "grad" not in key.lower()]
        if kind in known:
            found[kind] = kind
        elif likely:
            virial = kind == "stress" and "virial" in likely[0].lower()
            found["virial" if virial else kind] = likely[0]
    if "virial" in given:
        found.pop("stress", None)
    if "stress" in given:
        found.pop("virial", None)
    return {**found, **given}


# -- options ---------------------------------------------------------------------------------------


def of_options(path: Path | str) -> Looked:
    """The sets that an options file makes, with its keys and units. Raises what a training would raise before it."""
    planned = plan(path)
    data = build_datasets(planned.options, planned.architecture.info.default_kind)
    stores: list[StructureStore] = []
    sets: list[str] = []
    samples: list[str] = []
    for name, found in data.sets.items():
        if found is None:
            continue
        store = found.sample
        if len(store) > MOST_STRUCTURES:
            rows = sample(len(store), float(store.n_atoms.double().mean()))
            store = store if rows is None else store.select(torch.from_numpy(rows))
        if len(store) < len(found):
            samples.append(f"{len(store)} of {len(found)} structures of the {name} set")
        stores.append(store)
        sets.append(name)
    energies = {name: info for name, info in data.info.targets.items() if info.is_energy}
    said = [
        Finding("training", "warning", text)
        for text in data.warnings
        if not _said_here(text, energies)
    ]
    return _looked(stores, sets, energies, data.info.length_unit, True, said, samples)


def _said_here(text: str, energies: Iterable[str]) -> bool:
    """Whether an audit finds for itself what a training warns of."""
    ours = (
        "are there before, atom by atom",
        "in the training set too",
        "far beyond the others",
        "follow one another closely",
    )
    return any(part in text for part in ours) or any(
        f"'{name}': energies change by" in text for name in energies
    )


def _looked(
    stores: Sequence[StructureStore],
    sets: list[str],
    targets: dict[str, TargetInfo],
    length_unit: str,
    options: bool,
    said: list[Finding],
    samples: list[str],
) -> Looked:
    """Several stores as one, in the order of the files."""
    if not stores:
        raise OptionsError("there are no structures to look at")
    rows = {key: shape for info in targets.values() for key, shape in info.label_rows.items()}
    labels = {
        key: Label.joined([store.labels.get(key) or store.no_label(*shape) for store in stores])
        for key, shape in rows.items()
    }
    for store in stores:
        if store.origins is None:
            raise OptionsError("it is not known where structures came from")
        store.ids = None
    whole = concatenated(stores, labels)
    member = np.repeat(np.arange(len(stores)), [len(store) for store in stores])
    order, _, _ = in_files(whole)
    store = whole.select(torch.from_numpy(order))
    return Looked(store, sets, member[order], targets, length_unit, options, said, samples)
