"""From what files say to labels: found, checked, masked, with the right sign and shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from atomtrain.data.readers import Files, Reading
from atomtrain.data.readers.base import DataFile, GradientKind, Rows, Wanted
from atomtrain.data.splits import chosen_indices, stretches
from atomtrain.data.store import Label
from atomtrain.errors import DataError, OptionsError, TargetError, nearest
from atomtrain.options import (
    DatasetSection,
    GradientSection,
    SplitSection,
    SystemsSection,
    TargetSection,
    target_info,
)
from atomtrain.targets import TargetInfo
from atomtrain.targets.units import conversion, same_unit
from atomtrain.tasks import task_of

AT_ONCE = 10_000
"""structures that are looked through at once"""
EXTRAPOLATED = "energy_extrapolated"
"""a key for what ASE calls the energy, also where forces are derivatives of another one"""


def reading_as(systems: SystemsSection) -> Reading:
    """How a section wants its structures to be read."""
    return Reading(systems.format, tuple(sorted(systems.types.items())), systems.unconverged)


class SectionFiles:
    """The files of a section: the ``structures`` of its ``file``, those ``chosen``, and labels.

    ``also`` are chosen besides those that the section itself names; ``only``, if given, instead of them.
    ``where`` begins messages on its structures. Whatever is wrong raises DataError, or OptionsError for indices.
    """

    def __init__(
        self,
        section: DatasetSection,
        files: Files,
        also: Sequence[int] = (),
        only: Sequence[int] | None = None,
    ) -> None:
        systems = section.systems
        self.section = section
        self.where = section.where("systems", "read_from")
        self._reading = reading_as(systems)
        self.file = files.structures(systems.read_from, systems.reader, self.where, self._reading)
        self.structures = self.file.frames
        self.chosen: Sequence[int] = range(len(self.structures))
        if only is not None:
            self.chosen = only
        elif section.indices is not None:
            n, where = len(self.structures), section.where("indices")
            self.chosen = [*chosen_indices(section.indices, n, where), *also]
        self._files = files
        for path, unit in self.file.length_units().items():
            if not same_unit(unit, systems.length_unit):
                raise DataError(
                    f"{section.where('systems', 'length_unit')}: '{path}' is read in {unit}, which its "
                    f"format fixes, but length_unit is {systems.length_unit}; leave length_unit out"
                )

    def together(self, split: SplitSection, frames: np.ndarray, where: str) -> np.ndarray:
        """Which of some ``frames [n]`` a split keeps together: a number for each.

        Raises OptionsError, beginning with ``where``, for a key that the structures do not have.
        """
        if split.by == "block":
            order = np.argsort(frames)
            files = [self.file.origin(k)[0] for k in frames[order].tolist()]
            blocks = np.empty(len(frames), dtype=np.int64)
            blocks[order] = stretches(np.array(files, dtype=np.int64), split.fraction)
            return blocks
        values: Iterable[object]
        if split.by == "composition":
            values = self._compositions(frames)
        else:
            values = self._groups(split.key, frames, where)
        known: dict[object, int] = {}
        return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)

    def _compositions(self, frames: np.ndarray) -> Iterator[bytes]:
        for start in range(0, len(frames), AT_ONCE):
            store = self.file.packed(frames[start : start + AT_ONCE].tolist(), self.where)
            types = store.types.numpy()
            for a, b in pairwise(store.offsets.tolist()):
                yield np.sort(types[a:b]).tobytes()

    def _groups(self, key: str, frames: np.ndarray, where: str) -> list[str]:
        info = TargetInfo(key)
        found = self.file.raw(key, info, Wanted(self.structures, frames.tolist(), where))
        lacking = [k for k, value in zip(frames.tolist(), found, strict=True) if value is None]
        if lacking:
            near = nearest(key, sorted(self.file.keys))
            hint = f"; did you mean '{near}'?" if near and near != key else ""
            raise OptionsError(
                f"{where}: {len(lacking)} of {len(frames)} structures have no '{key}' "
                f"({self.file.named(lacking[:20])}){hint}"
            )
        return [str(value) for value in found]

    def target(self, name: str, info: TargetInfo) -> Label:
        """The label of a target; its task reads or computes it if it is not plain numbers."""
        if info.plain:
            return self.numbers("targets", name, info)
        section = self.section.targets[name]
        source = self._open(section, f"target '{name}'", "targets", name)
        return source.label(source.task_rows(section, info), section.allow_missing)

    def info(
        self, part: str, name: str, default_kind: str = "scalar", known: TargetInfo | None = None
    ) -> TargetInfo:
        """What the section says of ``targets`` or ``extra_data``, and the file of their numbers of properties.

        Where neither tells, these are those of a ``known`` target of the same kind. Raises OptionsError.
        """
        section: TargetSection = getattr(self.section, part)[name]
        where = self.section.where(part, name)
        try:
            info = target_info(name, section, default_kind)
            if not info.plain or info.is_energy:
                return info
            source = self._open(section, f"target '{name}'", part, name)
            counts = source.file.properties(section.key, source.wanted)
            if not counts and known is not None and known.kind == info.kind:
                counts = {block.name: block.n_properties for block in known.blocks}
            return target_info(name, section, default_kind, counts)
        except TargetError as error:
            raise OptionsError(f"{where}: {error}") from None

    def numbers(self, part: str, name: str, info: TargetInfo) -> Label:
        """Plain numbers in a ``part`` of the section: ``targets`` or ``extra_data``."""
        section: TargetSection = getattr(self.section, part)[name]
        source = self._open(section, f"target '{name}'", part, name)
        rows = source.checked.target(source.key, info, source.wanted)
        default = getattr(section, "default", None)  # extra data may have one
        if default is not None:
            rows.values[~rows.there], rows.there[:] = default, True
        return source.label(rows, nan_is_missing=info.width > 1 and not info.is_energy)

    @property
    def assumed_units(self) -> list[str]:
        """What was assumed of files of formats without units, where the options leave it open."""
        systems = self.section.systems
        usual = self.file.account.usual_units if self.file.account is not None else ""
        if not usual or "length_unit" in systems.model_fields_set:
            return []
        return [
            f"{self.where}: '{self.file.path}' is of a format without units: lengths are taken as "
            f"{systems.length_unit}, energies and forces in the unit of the energy and that; usual are "
            f"{usual}: say which with length_unit and unit"
        ]

    def unit(self, name: str, said: str) -> str:
        """The unit of a target: what the options say, or else the frames themselves.

        Raises DataError where the file says another.
        """
        target = self.section.targets[name]
        source = self._open(target, f"target '{name}'", "targets", name)
        told = source.stated_unit(said)
        # what a format fixes need not be repeated, and would differ from sections that leave it out
        fixed = source.file.account is not None and source.key in source.file.account.quantities
        if said or fixed or not told:
            return said
        try:
            conversion(told, told)
        except ValueError:
            raise DataError(
                f"{source.wanted.where}: '{source.file.path}' says that '{source.key}' is in {told}, which is "
                "no unit that is known; correct it"
            ) from None
        return told

    def energy_of_derivatives(self, name: str, label: Label, notes: list[str]) -> Label:
        """The energy whose derivatives the forces are, where the file has another one beside it.

        Codes extrapolate what they call the energy to zero smearing; forces and stress are derivatives
        of the free energy.
        """
        found = self._free_energy(name, label)
        if found is None:
            return label
        rows, both, said = found
        values = np.where(rows.there, rows.values, label.values.numpy())
        lacking = int((~both).sum())
        also = f"; {lacking} structures have no free energy, and keep theirs" if lacking else ""
        notes.append(
            f"{said}: the free energy is taken, as forces and stress are its derivatives{also} (key: "
            "energy_extrapolated takes the other)"
        )
        there = torch.from_numpy(rows.there) | label.there
        return Label.where(torch.from_numpy(values), label.per_atom, there)

    def say_which_energy(self, name: str, label: Label, notes: list[str]) -> None:
        """Of two energies in the file, without derivatives: which one was taken."""
        found = self._free_energy(name, label)
        if found is not None:
            notes.append(
                f"{found[2]}: without forces or stress 'energy' is taken as it is (key: free_energy takes "
                "the other)"
            )

    def _free_energy(self, name: str, label: Label) -> tuple[Rows, np.ndarray, str] | None:
        """Rows of the free energy, where both are [n, 1], and a sentence on them; None: no other energy."""
        target = self.section.targets[name]
        source = self._open(target, f"target '{name}'", "targets", name)
        account = source.file.account
        if account is None or target.key != "energy" or "free_energy" not in source.file.keys:
            return None
        info = TargetInfo(name, quantity="energy")
        try:
            rows = source.checked.target("free_energy", info, source.wanted)
        except DataError:  # something else under this name
            return None
        rows.there &= np.isfinite(rows.values)
        both = rows.there & label.there.numpy()
        n_atoms = source.wanted.n_atoms[np.asarray(source.wanted.chosen, dtype=np.int64)][:, None]
        difference = np.abs(np.where(both, rows.values - label.values.numpy(), 0.0)) / n_atoms
        if not difference.size or difference.max() < 1e-9:
            return None
        names = [
            account.quantities[k].name or k if k in account.quantities else k
            for k in ("energy", "free_energy")
        ]
        unit = f" {target.unit}" if target.unit else ""
        said = (
            f"energy of '{name}' in '{source.file.path}': it has {names[0]} and the free energy "
            f"{names[1]}, which differ by up to {difference.max():.4g}{unit}/atom"
        )
        return rows, both, said

    def gradient(self, name: str, kind: GradientKind, unit: str, notes: list[str]) -> Label | None:
        """Forces ``[n_atoms, 3]`` or strain derivative ``[n_structures, 9]`` of an energy in ``unit``.

        None where it is not required and the data do not have it. Stress means nothing without a
        volume: structures that are not periodic in all directions, and NaN, are masked. So are zeros of
        fixed atoms, unless the options keep them.
        """
        target = self.section.targets[name]
        section: GradientSection = getattr(target, kind)
        source = self._open(section, kind, "targets", name, kind)
        rows = source.checked.gradient(section.key, kind, target.key, source.wanted)
        if rows.there.any():
            rows.values *= self._factor(source, section, kind, unit)
        forces = kind == "forces"
        applies = (
            np.ones(len(self.chosen), dtype=bool) if forces else self.file.periodic(self.chosen)
        )
        applies = np.repeat(applies, source.wanted.counts(per_atom=forces))[:, None]
        if forces and self.section.systems.fixed_atoms == "mask":
            applies = applies & ~self._not_computed(source, rows, notes)
        if not section.required and not (rows.there & applies).any():
            return None
        label = source.label(rows, nan_is_missing=not forces, applies=applies)
        if forces or bool(label.there.any()):
            return label
        if section.required:
            raise DataError(
                f"{source.wanted.where}: no structure has a usable {kind} (it needs a cell periodic "
                "in all directions); set it to false"
            )
        return None

    def _factor(
        self, source: _Source, section: GradientSection, kind: GradientKind, energy: str
    ) -> float:
        """What a gradient is multiplied by, to have the unit that the energy and lengths have."""
        target = self.section.systems.length_unit
        stated = source.stated_unit(section.unit)
        compression = source.file.compression(source.key)
        if section.positive is not None:
            compression = section.positive == "compression"
        sign = -1.0 if compression and kind == "stress" else 1.0
        if (
            not section.unit
            and source.file.account is not None
            and source.key in source.file.account.quantities
            and not energy
        ):
            return sign  # a format that fixes all its units
        said = section.unit or stated
        if not said:
            return sign
        where = source.wanted.where
        if not energy:
            raise DataError(
                f"{where}: to convert {kind} from {said} the unit of the energy must be known, too; give it "
                "(unit: eV)"
            )
        to = energy + {"forces": f"/{target}", "stress": f"/{target}^3", "virial": ""}[kind]
        try:
            return sign * conversion(said, to)
        except ValueError:
            raise DataError(f"{where}: {kind} in {said} cannot be converted to {to}") from None

    def _not_computed(self, source: _Source, rows: Rows, notes: list[str]) -> np.ndarray:
        """Zeros that the file has for forces on fixed atoms, [n_rows, 3] bool."""
        found = np.zeros(rows.values.shape, dtype=bool)
        if not source.file.has_fixed and not self.file.has_fixed:
            return found
        frames = source.file.frames or self.structures
        for k, part in source.wanted.parts(per_atom=True):
            fixed = frames[k].fixed
            fixed = self.structures[k].fixed if fixed is None else fixed
            if fixed is not None:
                found[part] = fixed & (rows.values[part] == 0) & rows.there[part]
        atoms = int(found.any(1).sum())
        if atoms:
            notes.append(
                f"forces in '{source.file.path}' are zero for {atoms} of {len(found)} atoms because a "
                "constraint fixed them: they are left out (fixed_atoms: keep takes them)"
            )
        return found

    def instead(self, name: str, kind: GradientKind) -> tuple[str, list[str]]:
        """The file where a gradient is looked for, and what it has that looks like it."""
        target = self.section.targets[name]
        section: GradientSection = getattr(target, kind)
        file = self._open(section, kind, "targets", name, kind).file
        return file.path, file.resembling(kind)

    def classes(self, name: str, info: TargetInfo) -> tuple[str, ...]:
        """Names of the classes that occur; DataError where there are none."""
        key = self.section.targets[name].key
        source = self._open(self.section.targets[name], f"target '{name}'", "targets", name)
        values = [v for v in source.checked.raw(key, info, source.wanted) if v is not None]
        where, path = source.wanted.where, source.file.path
        if not values:
            raise DataError(f"{where}: '{path}' has no '{key}'{source.hint}")
        try:
            return task_of(info.kind).classes_in(values)
        except ValueError as error:
            raise DataError(f"{where}: '{key}' of '{path}': {error}") from None

    def _open(self, section: TargetSection | GradientSection, what: str, *place: str) -> _Source:
        where, extra = self.section.where(*place), place[0] == "extra_data"
        wanted = Wanted(self.structures, self.chosen, where, flags=extra)
        reading = replace(self._reading, format=section.format)
        file = self._files.open(section.read_from, section.reader, wanted.where, reading)
        key = section.key
        if key == EXTRAPOLATED and key not in file.keys:
            key = "energy"
        remedy = f"set allow_missing: true to train {what} on the others"
        if extra:
            remedy = "give the others a default (default: 0)"
        return _Source(file, wanted, key, section.allow_missing, remedy)


@dataclass(frozen=True)
class _Source:
    """Where a label is read: the file, opened, and what the options say; ``remedy`` for where it is not there."""

    file: DataFile
    wanted: Wanted
    key: str
    allow_missing: bool
    remedy: str

    @property
    def checked(self) -> DataFile:
        """The file; DataError unless its structures, if any, are those of the section."""
        self.file.check(self.wanted)
        return self.file

    def stated_unit(self, said: str) -> str:
        """The unit that the file says its values have; DataError where the options say another."""
        try:
            told = self.file.stated_unit(self.key)
        except ValueError as error:
            raise DataError(f"{self.wanted.where}: '{self.file.path}': {error}") from None
        if told and said and not same_unit(told, said):
            raise DataError(
                f"{self.wanted.where}: '{self.key}' of '{self.file.path}' is read in {told}, which the "
                f"file or its format fixes, but the options say {said}; leave unit out, or write {told}"
            )
        return told

    @property
    def hint(self) -> str:
        """What else the file has, to end a message with."""
        account = self.file.account
        format = f" (read as {account.format})" if account is not None and account.format else ""
        # words without a value in the comment lines of xyz are no names of values
        known = sorted(
            key for key in self.file.keys if key.isidentifier() or not self.file.flag(key)
        )
        words = sorted(self.file.keys.difference(known))
        also = f"; its comment lines have words without values ({', '.join(words[:4])}), which are not read"
        also = also if words else ""
        if not known:
            return f"; the file has no other values{format}{also}"
        if self.key in known:
            return f" in any structure of this section, only in others{format}"
        near = nearest(self.key, known)
        hint = f"; did you mean '{near}'?" if near else ";"
        return f"{hint} the file has: {', '.join(known)}{format}{also}"

    def task_rows(self, section: TargetSection, info: TargetInfo) -> Rows:
        """What the target's task makes of the file's values, or of the structures alone."""
        task, wanted = task_of(info.kind), self.wanted
        computed = task.computes_labels(info, section.labels_given)
        values = [None] * len(wanted.chosen)
        if not computed:
            values = self.checked.raw(self.key, info, wanted)
        rows = Rows.absent(wanted, info.per_atom, info.width, f"'{self.key}'")
        for value, (k, part) in zip(values, wanted.parts(info.per_atom), strict=True):
            if value is None and not computed:
                continue
            try:
                rows.put(part, task.row(value, info, wanted.structures[k]))
            except (ValueError, TypeError) as error:
                what = self.file.named([k])
                what = what if computed else f"'{self.key}' of {what}"
                raise DataError(f"{wanted.where}: {what}: {error}") from None
        return rows

    def label(self, rows: Rows, nan_is_missing: bool, applies: np.ndarray | None = None) -> Label:
        """``rows`` of the file as a label; where they do not apply (bool, as the values) they are masked."""
        applying = True if applies is None else applies
        there, lacking = rows.there & applying, ~rows.there & applying
        where, path, structures = self.wanted.where, self.file.path, self.wanted.chosen
        broken = there & (np.isinf(rows.values) if nan_is_missing else ~np.isfinite(rows.values))
        if broken.any():
            raise DataError(
                f"{where}: {rows.name} is NaN or infinite in "
                f"{self.file.named(self._structures(broken, rows))}; remove these frames or repair "
                "them"
            )
        if lacking.any() and not there.any():
            raise DataError(f"{where}: '{path}' has no {rows.name}{self.hint}")
        if lacking.any() and not self.allow_missing:
            missing = self._structures(lacking, rows)
            raise DataError(
                f"{where}: {rows.name} is missing in {len(missing)} of {len(structures)} "
                f"structures ({self.file.named(missing)}); complete the data, or {self.remedy}"
            )
        mask = there & np.isfinite(rows.values)
        values = np.where(mask, rows.values, 0.0)
        return Label.where(torch.from_numpy(values), rows.per_atom, torch.from_numpy(mask))

    def _structures(self, entries: np.ndarray, rows: Rows) -> list[int]:
        """Numbers of the structures of which some ``entries [n_rows, width]`` are true."""
        of_row = np.repeat(np.asarray(self.wanted.chosen), self.wanted.counts(rows.per_atom))
        return list(dict.fromkeys(of_row[entries.any(1)].tolist()))
