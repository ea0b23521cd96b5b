"""Sections that describe data: systems, targets, gradients, extra data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_serializer,
    field_validator,
    model_validator,
)

from atomtrain.files import file_stem
from atomtrain.options import peer
from atomtrain.options.atomic_types import AtomicType
from atomtrain.options.head import HeadSection
from atomtrain.options.target_type import TypeSection
from atomtrain.sections import Path, Problems, Section, Source, shown
from atomtrain.sections.names import STANDARD_TARGETS, bad_target_name, base_name

Indices = list[Annotated[int, Field(ge=0)]]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1)]
GRADIENTS = ("forces", "stress", "virial")


def _at_path(value: Any) -> Any:
    """What is read, where only the path is given."""
    return {"read_from": value} if isinstance(value, (str, list)) else value


class SystemsSection(Section):
    """Where the structures are."""

    read_from: Text | Texts
    """Path of the file or directory with the structures, from the working directory. Of files that are
    read frame by frame also several: a list, or a name with wildcards (``data/*.xyz``, sorted)."""
    reader: str | None = None
    """Reader to use: ``ase``, ``metatensor``, or one that a component brings. Absent: chosen by the
    file's extension."""
    format: str = ""
    """Format of the file, by the reader's name for it (ASE's: ``vasp-xml``). Absent: guessed from name
    and content; the log says which."""
    length_unit: str = "angstrom"
    """Unit of positions and cells, any unit of length metatomic knows, in any case."""
    types: dict[Annotated[int, Field(ge=0)], AtomicType] = {}
    """The element of each type of atom, for files that have types only (``types: {1: Cu, 2: Ni}`` for
    dumps of LAMMPS)."""
    unconverged: Literal["refuse", "drop", "keep"] = "refuse"
    """What to do with structures whose self-consistent cycle did not converge: ``refuse`` the file,
    ``drop`` them, or ``keep`` them."""
    fixed_atoms: Literal["mask", "keep"] = "mask"
    """What to do with forces of atoms that a constraint fixed, where the file has zeros for them:
    ``mask`` them, or ``keep`` the zeros."""

    @field_validator("types", mode="before")
    @classmethod
    def _whole_numbers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {int(k) if str(k).isdigit() else k: v for k, v in value.items()}


Systems = Annotated[
    SystemsSection, BeforeValidator(_at_path, json_schema_input_type=SystemsSection | Text | Texts)
]


class GradientSection(Section):
    """Forces, stress or virial of an energy.

    In the file also ``true`` (must be there, default place), ``false`` (off), ``auto`` (taken if
    the data has it) or a path.
    """

    read_from: str | Texts = ""
    """Path of the file with the values, or several as of the structures. Absent: the file of the
    energy."""
    reader: str | None = None
    """Reader to use. Absent: chosen by the file's extension."""
    format: str = ""
    """Format of the file, by the reader's name for it (ASE's: ``vasp-xml``). Absent: guessed from name
    and content; the log says which."""
    key: str = ""
    """Name of the values in the file. Absent: ``forces``, ``stress`` or ``virial``."""
    unit: str = ""
    """Unit of the values (``hartree/bohr``, ``GPa``, ``kbar``, ``bar``, ``eV/A^3``). Absent: what the file
    says, else that of the energy and ``length_unit``."""
    positive: Literal["tension", "compression"] | None = None
    """When a stress counts as positive. Absent: under tension, as in ASE."""
    allow_missing: bool = False
    """Whether structures may lack the values; they are then masked in loss and metrics."""
    required: bool = True
    """Whether it is an error if the data does not have the values at all."""


def _gradient(value: Any) -> Any:
    """A section for ``true``, ``auto`` and paths, None for ``false``."""
    if isinstance(value, bool):
        return {} if value else None
    return {"required": False} if value == "auto" else _at_path(value)


Gradient = Annotated[
    GradientSection | None,
    BeforeValidator(_gradient, json_schema_input_type=GradientSection | bool | str | Texts | None),
]


class TargetSection(Section):
    """One quantity to train on. In the file also just the path it is read from."""

    model_config = ConfigDict(json_schema_extra=peer.allow_per_atom)

    quantity: str = ""
    """What the target is. ``energy`` is special: it can have forces, stress and virial, and it is
    the default for the target ``energy`` and its variants (``energy/pbe``), and for those that are given
    forces, stress or virial."""
    read_from: str | Texts = ""
    """Path of the file with the values, or several as of the structures. Absent: the file of the
    systems."""
    reader: str | None = None
    """Reader to use: ``ase``, ``metatensor``, or one that a component brings. Absent: chosen by the
    file's extension."""
    format: str = ""
    """Format of the file, by the reader's name for it (ASE's: ``vasp-xml``). Absent: guessed from name
    and content; the log says which."""
    key: str = ""
    """Name of the values in the file. Absent: the name of the target. ``energy`` with forces or stress is
    the energy whose derivatives they are, where a file has several (VASP: ``e_fr_energy``);
    ``energy_extrapolated`` is the one extrapolated to zero smearing."""
    unit: str = ""
    """Unit of the values, any expression metatomic understands (``kcal/mol``), in any case. Without
    it engines cannot convert predictions."""
    sample_kind: Literal["system", "atom"] = "system"
    """Whether there is one value per ``system`` or per ``atom``. The older spelling
    ``per_atom: true`` is understood."""
    type: TypeSection | None = None
    """Kind of the target: ``scalar``, ``cartesian: {rank: 1}``, ``spherical: {irreps: [...]}``,
    ``binary``, ``classes``, ``denoising``, or one that a package brings (``spacegroup``,
    ``pointgroup``, ``crystal_system``: atomtrain-symmetry). Absent: the default of the architecture,
    in general ``scalar``."""
    num_subtargets: Annotated[int, Field(ge=1)] | None = None
    """How many equivalent values there are, for instance the grid points of a density of states.
    Absent: as many as the file has where its format tells (``.mts``, ``.zip``), else 1."""
    description: str = ""
    """What the target is, in words, for the metadata of the model."""
    forces: Gradient = None
    """Forces (minus the gradient of the energy with respect to the positions). Absent: taken if the
    data has them."""
    stress: Gradient = None
    """Stress, positive under tension as in ASE. Absent: taken if the data has it."""
    virial: Gradient = None
    """Virial (minus volume times stress), instead of the stress. Absent: off."""
    allow_missing: bool = False
    """Whether structures may lack the target; they are then masked in loss and metrics."""
    pooling: Literal["sum", "mean", "max"] | None = None
    """How values of atoms become one of the structure. Absent: the sum, for classes the mean."""
    head: HeadSection | None = None
    """A head of the core for the target, with these options (``{}``: all at their defaults)."""

    _given: bool = PrivateAttr(False)
    _by_gradients: bool = PrivateAttr(False)
    _spelt_out: bool = PrivateAttr(False)

    @property
    def energy_by_gradients(self) -> bool:
        """Whether it is an energy only because the options give it forces, stress or virial."""
        return self._by_gradients

    @property
    def spelt_out(self) -> bool:
        """Whether metatrain wrote the section, with gradients that the data need not have."""
        return self._spelt_out

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
            and self.num_subtargets in (None, 1)
            and (self.type is None or self.type.scalar is not None)
            and self.pooling in (None, "sum")
        )

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        # what the user spoke of must survive: a gradient that is absent is taken if the data has it
        spoken = {k: v for k, v in data.items() if v is not None or k not in GRADIENTS}
        return peer.sample_kind(spoken)

    @field_validator("sample_kind", mode="before")
    @classmethod
    def _no_pairs(cls, value: Any) -> Any:
        if value == "atom_pair":
            raise ValueError(
                "targets per pair of atoms are not supported: predictions are sums over atoms; "
                "use 'atom' or 'system'"
            )
        return value

    @field_serializer(*GRADIENTS)
    def _off_is_false(self, value: GradientSection | None) -> Any:
        return False if value is None else value.model_dump()

    def complete(self, name: str, systems: SystemsSection, label: bool) -> None:
        """Fill in what follows from the target's name and the systems; ``label``: not extra data.

        Raises :class:`Problems` for gradients that cannot be.
        """
        said = self.model_fields_set
        self._given = self._given or not {"key", "read_from"}.isdisjoint(said)
        asked = [g for g in GRADIENTS if getattr(self, g) is not None]
        if label and not self.quantity and (asked or base_name(name) == "energy"):
            self.quantity = "energy"
            self._by_gradients = base_name(name) != "energy"
        _read_beside(self, systems)
        self.key = self.key or name
        if not (label and self.is_energy):
            if asked:
                problem = "only an energy (quantity: energy, one scalar per system) has "
                raise Problems.at(asked[0], problem + "forces, stress or virial")
            return
        self._spelt_out = self._spelt_out or peer.spelt_out(self, asked)
        if "forces" not in said:
            self.forces = GradientSection(required=False)
        if "stress" not in said and self.virial is None:
            self.stress = GradientSection(required=False)
        if self.stress is not None and self.virial is not None:
            problem = "stress and virial are the same quantity in two spellings; set one of them "
            raise Problems.at("virial", problem + "to false")
        for gradient in GRADIENTS:
            section = getattr(self, gradient)
            if section is not None and section.positive and gradient != "stress":
                problem = f"only a stress has a sign to choose; {gradient} have that of the energy"
                raise Problems.at(gradient, problem)
            if section is not None:
                if self._spelt_out:
                    section.required = False
                section.key = section.key or gradient
                _read_beside(section, self)


def _read_beside(
    section: TargetSection | GradientSection, other: SystemsSection | TargetSection
) -> None:
    """Values without a file of their own are where the ``other`` section's are."""
    if not section.read_from:
        section.read_from = other.read_from
        section.reader = section.reader or other.reader
        section.format = section.format or other.format


Target = Annotated[
    TargetSection, BeforeValidator(_at_path, json_schema_input_type=TargetSection | str | Texts)
]


class ExtraSection(TargetSection):
    """Values that are no target. In the file also just the path they are read from."""

    default: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """What structures have for which the data say nothing. Absent: that is an error."""


ExtraData = Annotated[
    ExtraSection, BeforeValidator(_at_path, json_schema_input_type=ExtraSection | str | Texts)
]


def _known_name(name: Any) -> Any:
    """A name that a target may have."""
    wrong = bad_target_name(name)
    if wrong is not None:
        raise ValueError(wrong)
    return name


_STANDARD = "|".join([*STANDARD_TARGETS, *peer.OLDER_TARGETS])
_PART = "([^/:]|:(?!:))+"
_PATTERN = rf"^(({_STANDARD})(/.+)?|{_PART}(::{_PART})+(/((?!::).)+)?)$"
# in the schema only: pydantic's own regular expressions do not look ahead
_Named = Annotated[str, Field(json_schema_extra={"pattern": _PATTERN})]
TargetName = Annotated[str, BeforeValidator(_known_name, json_schema_input_type=_Named)]


class DatasetSection(Section):
    """Structures and their targets, from one place. In the file also just a path."""

    systems: Systems
    """Where the structures are; also just a path."""
    targets: Annotated[dict[TargetName, Target], BeforeValidator(peer.todays_names)] = {}
    """What to train on, by name: one of metatomic's standard names (``energy``), a variant of one
    (``energy/pbe``) or ``<domain>::<name>``. Each a section, or just a path."""
    extra_data: dict[str, ExtraData] = {}
    """Further values that losses or models need, written like targets: inputs of the architecture by
    metatomic's names (``charge``, ``spin_multiplicity``), which may only be missing where they have a
    ``default``. Those called ``<target>_mask`` say where the target counts: not where they are 0, nor,
    with ``allow_missing: true``, where they are missing."""
    indices: Indices | str | None = None
    """Take only these structures (counted from 0): a list, or a text file of them."""

    _source: Source | None = PrivateAttr(None)
    _path: Path = PrivateAttr(())

    @model_validator(mode="after")
    def _complete(self) -> DatasetSection:
        problems: list[tuple[Path, str]] = []
        for kind, sections in (("targets", self.targets), ("extra_data", self.extra_data)):
            for name, section in sections.items():
                try:
                    section.complete(name, self.systems, label=kind == "targets")
                except Problems as found:
                    problems += [((kind, name, *path), text) for path, text in found.problems]
        problems += clashes([((), self)])
        if problems:
            raise Problems(*problems)
        return self

    def where(self, *keys: str | int) -> str:
        """``options.yaml:12: training_set.targets.energy.key``, to begin a message with."""
        path = (*self._path, *keys)
        if self._source is None:
            return _joined(path)
        return self._source.where(path)


def clashes(sections: Sequence[tuple[Path, DatasetSection]]) -> Iterator[tuple[Path, str]]:
    """Names in sections, each at a path, that stand for two things: located problems.

    Targets whose names are one in the names of files, extra data that are called like a target, and
    extra data that are something else in another section.
    """
    written: dict[str, str] = {}
    targets = {name for _, section in sections for name in section.targets}
    extra_data: dict[str, tuple[str, TargetSection]] = {}
    for path, section in sections:
        for name, target in section.targets.items():
            kinds = ("", "_forces", "_stress") if target.is_energy else ("",)
            for key in (file_stem(name).replace("::", "_") + kind for kind in kinds):
                other = written.setdefault(key, name)
                if other != name:
                    problem = f"is '{key}' in the names of files, and so is '{other}'; rename one"
                    yield (*path, "targets", name), problem
        for name, extra in section.extra_data.items():
            here: Path = (*path, "extra_data", name)
            if name in targets:
                yield here, f"is called like the target '{name}'; give it another name"
            where, other_extra = extra_data.setdefault(name, (_joined(here), extra))
            for what in ("quantity", "unit", "sample_kind", "num_subtargets"):
                a, b = getattr(extra, what), getattr(other_extra, what)
                if a and b and str(a).lower() != str(b).lower():
                    problem = f"is {shown(a)}, but {shown(b)} in {where}; they must agree"
                    yield (*here, what), problem


def _joined(path: Path) -> str:
    return ".".join(str(part) for part in path)


def energies_at(value: Any) -> Any:
    """Structures and their energies, where only a path is given."""
    if isinstance(value, str):
        return {"systems": value, "targets": {"energy": value}}
    return value


Dataset = Annotated[
    DatasetSection, BeforeValidator(energies_at, json_schema_input_type=DatasetSection | Text)
]
