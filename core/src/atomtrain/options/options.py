"""The options file as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from atomtrain.errors import OptionsError
from atomtrain.options import peer
from atomtrain.options.atomic_types import AtomicType
from atomtrain.options.dataset import (
    Dataset,
    DatasetSection,
    Indices,
    TargetSection,
    clashes,
    energies_at,
)
from atomtrain.options.target_type import Counts
from atomtrain.sections import Path, Problems, Section, Source, read_document, shown, validate
from atomtrain.targets.layout import LAYOUTS, TargetInfo
from atomtrain.targets.units import conversion
from atomtrain.tasks import task_for


def _sorted(numbers: list[int]) -> list[int]:
    return sorted(set(numbers))


class ArchitectureSection(Section):
    """Which architecture, and its hypers."""

    name: str
    """Name of an installed architecture."""
    environment: str | None = None
    """The folder of the Python environment that has the architecture (made by ``python -m venv``, for instance), where
    it is not this one: the training runs there. Absent: this one, or a registered one that has it
    (``atomtrain architectures --add-environment``)."""
    atomic_types: Annotated[list[AtomicType], AfterValidator(_sorted)] | None = None
    """Atomic numbers the model is built for. Absent: those in the training set."""
    model: dict[str, Any] = {}
    """Hypers of the model, the architecture's own."""
    training: dict[str, Any] = {}
    """Hypers of the training, the architecture's own."""


class IndicesSection(Section):
    """Structures of a training section's file, by their numbers."""

    indices: Indices | str
    """The structures (counted from 0 in the file of the training section, or in its files one after the
    other): a list, or a text file of them. They are not trained on."""


class SplitSection(Section):
    """A part of each training section that is drawn so that structures which belong together stay together."""

    fraction: Annotated[float, Field(gt=0, lt=1)]
    """Which part of the structures, as nearly as what stays together allows."""
    by: Literal["random", "group", "composition", "block"] = "random"
    """What stays together: nothing (``random``), structures with the same value of ``key`` (``group``) or of one
    composition, or stretches of neighbouring frames (``block``), for trajectories."""
    key: str = ""
    """For groups: the name of a value that the structures have in the file (``group``, ``config_type``, ...)."""
    gap: Annotated[int, Field(ge=0)] = 0
    """For blocks: so many frames on either side of a block are in no set."""

    @model_validator(mode="after")
    def _complete(self) -> SplitSection:
        if self.by == "group" and not self.key:
            raise Problems.at("by", "groups need a key: the name of a value in the file")
        if self.key and self.by != "group":
            raise Problems.at("key", f"only groups have one, and this is a split by {self.by}")
        if self.gap and self.by != "block":
            raise Problems.at("gap", f"only blocks have one, and this is a split by {self.by}")
        return self


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _for_each(value: Any, info: ValidationInfo) -> Any:
    """A number or fraction is meant for each training section; anything else is a list or its only entry."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number or (isinstance(value, dict) and "fraction" in value):
        return [value] * len(info.data.get("training_set", [0]))
    return _listed(value)


def _part(part: Any) -> Any:
    """``100.0`` structures are a count, and only fractions stay floats."""
    if isinstance(part, float) and part >= 1 and part.is_integer():
        part = int(part)
    if isinstance(part, float) and not 0 <= part < 1:
        raise ValueError(f"a fraction must be at least 0 and below 1, got {part:g}")
    if isinstance(part, int) and part < 0:
        raise ValueError(f"a count cannot be negative, got {part}")
    return energies_at(part)


_Fraction = Annotated[float, Field(ge=0, lt=1)]
_Count = Annotated[int, Field(ge=0)]
PartOf = Annotated[
    float | int | IndicesSection | SplitSection | DatasetSection,
    BeforeValidator(
        _part,
        json_schema_input_type=_Fraction | _Count | IndicesSection | SplitSection | Dataset,
    ),
]
"""A part of a training section (fraction, count, indices, split) or structures of their own."""


def _one_for_each(parts: list[PartOf], info: ValidationInfo) -> list[PartOf]:
    count = len(info.data.get("training_set", parts))
    own = all(isinstance(part, DatasetSection) for part in parts)
    if not own and len(parts) != count:
        raise ValueError(
            f"has {len(parts)} entries for {count} training sections; fractions, counts and "
            "indices need one for each"
        )
    return parts


Some = Field(min_length=1)
Sections = Annotated[list[Dataset], Some]
Parts = Annotated[list[PartOf], AfterValidator(_one_for_each)]


def _by_name(observers: Any) -> Any:
    """One name, a list of names, or a section in which names may have no arguments."""
    names = [observers] if isinstance(observers, str) else observers
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return {name: {} for name in names}
    if isinstance(observers, dict):
        return {name: {} if given is None else given for name, given in observers.items()}
    return observers


_Observers = dict[str, dict[str, Any] | None] | str | list[str]


class Options(Section):
    """Everything one training is told."""

    model_config = ConfigDict(json_schema_extra=peer.allow_wandb)

    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the run: splits, initial weights, order of batches."""
    device: Literal["cpu", "cuda", "gpu", "mps", "multi-gpu"] | None = None
    """Where to train. Absent: on what the architecture prefers among what the machine has."""
    base_precision: Literal[16, 32, 64] = 32
    """Bits of the numbers the model computes with; 16 with architectures that say they can (16 is bfloat16, where they
    have it). Energies leave a model in 64 bits all the same."""
    print_stats: bool | Literal["auto"] = "auto"
    """Whether statistics of the data sets are printed (``auto``: unless they are large)."""
    final_eval: bool | dict[str, dict[str, Any] | bool | None] = True
    """How the best model is evaluated at the end. ``true``: its errors on all sets, and what installed packages do
    with every training (a report); ``false``: not at all. Further evaluations of packages by name with their
    arguments: ``{dynamics: {temperature: 300}, report: false}``."""
    observers: Annotated[
        dict[str, dict[str, Any]], BeforeValidator(_by_name, json_schema_input_type=_Observers)
    ] = {}
    """Loggers and callbacks of installed packages, by name with their arguments (``tensorboard: {}``);
    also just a name or a list of names. Weights & Biases (``pip install atomtrain-wandb``) takes the
    arguments of its ``init``: ``wandb: {project: water, mode: offline}``, which may also stand beside
    ``observers``."""
    architecture: ArchitectureSection
    """Which architecture, and its hypers."""
    training_set: Annotated[
        Sections, BeforeValidator(_listed, json_schema_input_type=Dataset | Sections)
    ]
    """What to train on: a path, a section, or a list of sections."""
    validation_set: Annotated[
        Parts,
        Some,
        BeforeValidator(_for_each, json_schema_input_type=PartOf | Annotated[Parts, Some]),
    ]
    """What to choose the best model by: a fraction (below 1) or number of the structures of each
    training section, ``{fraction: 0.1, by: block}``, ``{indices: ...}`` in its file, or a list with one of these
    per training section; or structures of their own, a path, a section or any number of sections. ``0``: no
    validation, the best model is the last one."""
    test_set: Annotated[
        Parts, BeforeValidator(_for_each, json_schema_input_type=PartOf | Parts)
    ] = []
    """What to test the best model on, written like the validation set. Absent: nothing."""

    _source: Source = PrivateAttr(default_factory=Source)

    @property
    def source(self) -> Source:
        """Where the options came from, for messages."""
        return self._source

    @model_validator(mode="after")
    def _one_meaning(self) -> Options:
        sections: list[tuple[Path, DatasetSection]] = [
            ((name, k), section)
            for name in ("training_set", "validation_set", "test_set")
            for k, section in enumerate(getattr(self, name))
            if isinstance(section, DatasetSection)
        ]
        problems = [*clashes(sections), *_untrained(sections)]
        if problems:
            raise Problems(*problems)
        return self

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return peer.wandb_as_observer({**data, "observers": _by_name(data.get("observers"))})


def _untrained(sections: Sequence[tuple[Path, DatasetSection]]) -> Iterator[tuple[Path, str]]:
    """Targets of validation and test sets that no training section has: located problems."""
    trained = {
        name for path, section in sections if path[0] == "training_set" for name in section.targets
    }
    for path, section in sections:
        for name in section.targets if path[0] != "training_set" else ():
            if name not in trained:
                known = ", ".join(trained) or "none"
                problem = f"is no target of the training set (its targets: {known}): train on it, or remove it here"
                yield (*path, "targets", name), problem


def load_options(
    options: str | PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()
) -> Options:
    """Read, validate and complete an options file, or what one would hold.

    ``overrides`` are ``a.b.c=value`` texts. Raises OptionsError that lists every problem with file,
    line and key.
    """
    source = read_document(options, overrides, peer.todays_name)
    if not isinstance(source.values, dict):
        what = f"'{source.name}' is" if source.name else "the options are"
        raise OptionsError(
            f"{what} a list; an options file has the keys architecture, training_set "
            "and validation_set"
        )
    source.moved = peer.moved(source.values)
    validated = validate(Options, source.values, (), source)
    validated._source = source
    for name in ("training_set", "validation_set", "test_set"):
        for k, section in enumerate(getattr(validated, name)):
            if isinstance(section, DatasetSection):
                section._source, section._path = source, (name, k)
    return validated


def load_eval_options(
    options: str | PathLike[str] | Mapping[str, Any] | list[Any],
) -> list[DatasetSection]:
    """The sections of a file for ``atomtrain eval``: one section or a list of them."""
    source = read_document(options, today=peer.todays_name)
    several = isinstance(source.values, list)
    sections = []
    for k, value in enumerate(source.values if several else [source.values]):
        path: Path = (k,) if several else ()
        section = validate(DatasetSection, energies_at(value), path, source)
        section._source, section._path = source, path
        sections.append(section)
    return sections


def complete(options: Options, model: BaseModel, training: BaseModel) -> dict[str, Any]:
    """The options with every default filled in: plain data that loads to the same options."""
    data = options.model_dump(mode="json")
    data["architecture"]["model"] = model.model_dump(mode="json")
    data["architecture"]["training"] = training.model_dump(mode="json")
    for key in ("atomic_types", "environment"):
        if data["architecture"][key] is None:
            del data["architecture"][key]
    return data


def dump_yaml(data: dict[str, Any], path: FilePath) -> None:
    """Write plain data as YAML."""
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def target_info(
    name: str, section: TargetSection, default_kind: str = "scalar", counts: Counts | None = None
) -> TargetInfo:
    """The layout of a target (its gradients are filled in when the data are known).

    ``counts``: how many properties its blocks have in the file, where that is known; used where the
    section says nothing. Raises TargetError for what cannot be.
    """
    said = section.type
    counts = {} if counts is None or section.is_energy else counts
    number = section.num_subtargets
    task = task_for(said.kind if said else None, default_kind, number or 1)
    if number is None:
        number = counts.get((), 1) if task.kind in LAYOUTS else 1
    info = TargetInfo(
        name=name,
        kind=task.kind,
        quantity=section.quantity,
        unit=section.unit,
        per_atom=section.per_atom,
        num_subtargets=number,
        rank=said.cartesian.rank if said and said.cartesian else 0,
        irreps=said.spherical.layout(section.num_subtargets, counts)
        if said and said.spherical
        else (),
        description=section.description,
        extra=said.args if said else {},
        pooling=section.pooling or task.pooling,
        head=section.head.model_dump() if section.head is not None else {},
    )
    return task.complete(info)


def check_units(sections: Sequence[DatasetSection]) -> None:
    """Raise OptionsError for units metatomic does not understand (imports torch)."""

    def check(where: str, unit: str, like: str, what: str) -> None:
        try:
            conversion(unit, like)
        except ValueError:
            raise OptionsError(f"{where}: {shown(unit)} is not {what}") from None

    lengths = "a unit of length metatomic knows (for instance angstrom, nm, bohr)"
    others = "metatomic knows (for instance eV, kcal/mol, hartree, eV/A^3)"
    gradients = {
        "forces": ("eV/angstrom", "a unit of force (for instance eV/A, hartree/bohr)"),
        "stress": ("GPa", "a unit of stress (for instance eV/A^3, GPa, kbar, bar)"),
        "virial": ("eV", "a unit of energy (for instance eV, hartree): a virial has that"),
    }
    for section in sections:
        where = section.where("systems", "length_unit")
        check(where, section.systems.length_unit, "angstrom", lengths)
        for name, target in section.targets.items():
            where = section.where("targets", name, "unit")
            if target.is_energy and target.unit:
                check(where, target.unit, "eV", f"a unit of energy {others}")
            elif target.unit:
                check(where, target.unit, target.unit, f"a unit {others}")
            for gradient, (like, what) in gradients.items():
                said = getattr(target, gradient)
                if said is None or not said.unit:
                    continue
                where = section.where("targets", name, gradient, "unit")
                check(where, said.unit, like, what)


def read_indices(where: str, indices: list[int] | str) -> list[int]:
    """Indices of structures, from the options or from a text file of whole numbers."""
    if not isinstance(indices, str):
        return indices
    if not os.path.isfile(indices):
        raise OptionsError(f"{where}: there is no file of indices '{indices}'")
    try:
        with open(indices, encoding="utf-8") as file:
            return [int(word) for word in file.read().replace(",", " ").split()]
    except ValueError as error:
        raise OptionsError(
            f"{where}: '{indices}' must hold whole numbers separated by spaces or lines ({error})"
        ) from None
