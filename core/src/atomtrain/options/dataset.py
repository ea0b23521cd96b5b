"""Sections that describe data: systems, targets, gradients, extra data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_serializer, model_validator

from atomtrain.options.head import HeadSection
from atomtrain.options.target_type import TypeSection
from atomtrain.sections import Path, Problems, Section, Source
from atomtrain.sections.names import bad_target_name, base_name, current_name

Indices = list[Annotated[int, Field(ge=0)]]


class SystemsSection(Section):
    """Where the structures are."""

    read_from: Annotated[str, Field(min_length=1)]
    """Path of the file or directory with the structures, from the working directory."""
    reader: str | None = None
    """Reader to use: ``ase``, ``metatensor``, or one that a component brings. Absent: chosen by the
    file's extension."""
    length_unit: str = "angstrom"
    """Unit of positions and cells, any unit of length metatomic knows, in any case."""


class GradientSection(Section):
    """Forces, stress or virial of an energy.

    In the file also ``true`` (must be there, default place), ``false`` (off), ``auto`` (taken if
    the data has it) or a path.
    """

    read_from: str = ""
    """Path of the file with the values. Absent: the file of the energy."""
    reader: str | None = None
    """Reader to use. Absent: chosen by the file's extension."""
    key: str = ""
    """Name of the values in the file. Absent: ``forces``, ``stress`` or ``virial``."""
    allow_missing: bool = False
    """Whether structures may lack the values; they are then masked in loss and metrics."""
    required: bool = True
    """Whether it is an error if the data does not have the values at all."""


class TargetSection(Section):
    """One quantity to train on. In the file also just the path it is read from."""

    quantity: str = ""
    """What the target is. ``energy`` is special: it can have forces, stress and virial, and it is
    the default for the target ``energy`` and its variants (``energy/pbe``)."""
    read_from: str = ""
    """Path of the file with the values. Absent: the file of the systems."""
    reader: str | None = None
    """Reader to use: ``ase``, ``metatensor``, or one that a component brings. Absent: chosen by the
    file's extension."""
    key: str = ""
    """Name of the values in the file. Absent: the name of the target."""
    unit: str = ""
    """Unit of the values, any expression metatomic understands (``kcal/mol``), in any case. Without
    it engines cannot convert predictions."""
    sample_kind: Literal["system", "atom", "atom_pair"] = "system"
    """Whether there is one value per ``system`` or per ``atom``. The older spelling
    ``per_atom: true`` is understood."""
    type: TypeSection | None = None
    """Kind of the target: ``scalar``, ``cartesian: {rank: 1}``, ``spherical: {irreps: [...]}``,
    ``binary``, ``classes``, ``denoising``, or one that a package brings (``spacegroup``,
    ``pointgroup``, ``crystal_system``: atomtrain-symmetry). Absent: the default of the architecture,
    in general ``scalar``."""
    num_subtargets: Annotated[int, Field(ge=1)] = 1
    """How many equivalent values there are, for instance the grid points of a density of states."""
    description: str = ""
    """What the target is, in words, for the metadata of the model."""
    forces: GradientSection | None = None
    """Forces (minus the gradient of the energy with respect to the positions). Absent: taken if the
    data has them."""
    stress: GradientSection | None = None
    """Stress, positive under tension as in ASE. Absent: taken if the data has it."""
    virial: GradientSection | None = None
    """Virial (minus volume times stress), instead of the stress. Absent: off."""
    allow_missing: bool = False
    """Whether structures may lack the target; they are then masked in loss and metrics."""
    pooling: Literal["sum", "mean", "max"] | None = None
    """How values of atoms become one of the structure. Absent: the sum, for classes the mean."""
    head: HeadSection | None = None
    """A head of the core for the target, with these options (``{}``: all at their defaults)."""

    _given: bool = PrivateAttr(False)

    @property
    def labels_given(self) -> bool:
        """Whether the options say where labels are, for kinds whose labels can be computed."""
        return self._given

    @property
    def per_atom(self) -> bool:
        """Whether there is one value per atom rather than per structure."""
        return self.sample_kind == "atom"

    @property
    def is_energy(self) -> bool:
        """One scalar energy per structure: what can have forces, stress and virial."""
        return (
            self.quantity == "energy"
            and self.sample_kind == "system"
            and self.num_subtargets == 1
            and (self.type is None or self.type.scalar is not None)
            and self.pooling in (None, "sum")
        )

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        """Spell out a path, ``per_atom`` and the short forms of gradients."""
        if isinstance(data, str):
            return {"read_from": data}
        if not isinstance(data, dict):
            return data
        data = dict(data)
        per_atom = data.pop("per_atom", None)
        if per_atom is not None:
            if not isinstance(per_atom, bool):
                raise Problems((("per_atom",), "expected true or false"))
            kind = "atom" if per_atom else "system"
            if data.get("sample_kind") not in (None, kind):
                raise Problems(
                    (
                        ("per_atom",),
                        f"contradicts sample_kind: {data['sample_kind']}; remove per_atom",
                    )
                )
            data["sample_kind"] = kind
        for name in ("forces", "stress", "virial"):
            if name in data:
                data[name] = _expand_gradient(data[name])
        # Which gradients the user spoke of must survive: an absent one is taken if the data has it.
        for name in ("forces", "stress", "virial"):
            if name in data and data[name] is None:
                del data[name]
            elif name in data and data[name] is False:
                data[name] = None
        return data

    @model_validator(mode="after")
    def _check(self) -> TargetSection:
        if self.sample_kind == "atom_pair":
            raise Problems(
                (
                    ("sample_kind",),
                    "targets per pair of atoms are not supported: predictions are sums over "
                    "atoms; use 'atom' or 'system'",
                )
            )
        return self

    @field_serializer("forces", "stress", "virial")
    def _off_is_false(self, value: GradientSection | None) -> Any:
        return False if value is None else value.model_dump()

    def complete(self, name: str, systems: SystemsSection, label: bool) -> None:
        """Fill in what follows from the target's name and the systems; ``label``: not extra data.

        Raises :class:`Problems` for gradients that cannot be.
        """
        said = self.model_fields_set
        self._given = self._given or not {"key", "read_from"}.isdisjoint(said)
        if label and not self.quantity and base_name(name) == "energy":
            self.quantity = "energy"
        if not self.read_from:
            self.read_from = systems.read_from
            self.reader = self.reader or systems.reader
        self.key = self.key or name
        asked = [g for g in ("forces", "stress", "virial") if getattr(self, g) is not None]
        if not (label and self.is_energy):
            if asked:
                raise Problems(
                    (
                        (asked[0],),
                        "only an energy (quantity: energy, one scalar per system) has "
                        "forces, stress or virial",
                    )
                )
            return
        if "forces" not in said:
            self.forces = GradientSection(required=False)
        if "stress" not in said and self.virial is None:
            self.stress = GradientSection(required=False)
        if self.stress is not None and self.virial is not None:
            raise Problems(
                (
                    ("virial",),
                    "stress and virial are the same quantity in two spellings; set one of them "
                    "to false",
                )
            )
        for gradient in ("forces", "stress", "virial"):
            section = getattr(self, gradient)
            if section is not None:
                section.key = section.key or gradient
                if not section.read_from:
                    section.read_from = self.read_from
                    section.reader = section.reader or self.reader


class DatasetSection(Section):
    """Structures and their targets, from one place. In the file also just a path."""

    systems: SystemsSection
    """Where the structures are; also just a path."""
    targets: dict[str, TargetSection] = {}
    """What to train on, by name: one of metatomic's standard names (``energy``), a variant of one
    (``energy/pbe``) or ``<domain>::<name>``. Each a section, or just a path."""
    extra_data: dict[str, TargetSection] = {}
    """Further values that losses or models need, written like targets. Those called
    ``<target>_mask`` say where the target counts: not where they are 0, nor, with
    ``allow_missing: true``, where they are missing. Others may not be missing."""
    indices: Indices | str | None = None
    """Take only these structures (counted from 0): a list, or a text file of them."""

    _source: Source | None = PrivateAttr(None)
    _path: Path = PrivateAttr(())

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"systems": {"read_from": data}, "targets": {"energy": {"read_from": data}}}
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if isinstance(data.get("systems"), str):
            data["systems"] = {"read_from": data["systems"]}
        targets = data.get("targets")
        if isinstance(targets, dict):
            data["targets"] = _todays_names(targets)
        return data

    @model_validator(mode="after")
    def _complete(self) -> DatasetSection:
        problems: list[tuple[Path, str]] = []
        for kind, sections in (("targets", self.targets), ("extra_data", self.extra_data)):
            for name, section in sections.items():
                try:
                    section.complete(name, self.systems, label=kind == "targets")
                except Problems as found:
                    problems += [((kind, name, *path), text) for path, text in found.problems]
        if problems:
            raise Problems(*problems)
        return self

    def where(self, *keys: str | int) -> str:
        """``options.yaml:12: training_set.targets.energy.key``, to begin a message with."""
        path = (*self._path, *keys)
        if self._source is None:
            return ".".join(str(part) for part in path)
        return self._source.where(path)


def _expand_gradient(value: Any) -> Any:
    if value is True:
        return {}
    if value == "auto":
        return {"required": False}
    return {"read_from": value} if isinstance(value, str) else value


def _todays_names(targets: dict[Any, Any]) -> dict[Any, Any]:
    renamed: dict[Any, Any] = {}
    problems: list[tuple[Path, str]] = []
    for name, section in targets.items():
        wrong = bad_target_name(name)
        if wrong is not None:
            problems.append((("targets", name), wrong))
            continue
        today = current_name(name)
        if today in renamed:
            problems.append(
                (("targets", name), f"is today's '{today}', which is given as well; remove one")
            )
        renamed[today] = section
    if problems:
        raise Problems(*problems)
    return renamed
