"""The options file as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, PrivateAttr, model_validator

from atomtrain.errors import OptionsError
from atomtrain.options.dataset import DatasetSection, Indices, TargetSection
from atomtrain.sections import (
    Path,
    Problems,
    Section,
    Source,
    read_document,
    shown,
    validate,
)
from atomtrain.sections.names import atomic_number
from atomtrain.targets.layout import TargetInfo
from atomtrain.tasks import task_for

H = TypeVar("H", bound=BaseModel)


class ArchitectureSection(Section):
    """Which architecture, and its hypers."""

    name: str
    """Name of an installed architecture."""
    atomic_types: list[int] | None = None
    """Atomic numbers the model is built for. Absent: those in the training set."""
    model: dict[str, Any] = {}
    """Hypers of the model, the architecture's own."""
    training: dict[str, Any] = {}
    """Hypers of the training, the architecture's own."""

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("atomic_types"), list):
            try:
                numbers = sorted({atomic_number(t) for t in data["atomic_types"]})
            except ValueError as error:
                raise Problems((("atomic_types",), str(error))) from None
            data = {**data, "atomic_types": numbers}
        return data


class IndicesSection(Section):
    """Structures of the training set, by their numbers."""

    indices: Indices | str
    """The structures (counted from 0): a list, or a text file of them."""


PartOf = float | int | IndicesSection | DatasetSection
"""A part of a training section (fraction, count, indices) or structures of their own."""


class Options(Section):
    """Everything one training is told."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the run: splits, initial weights, order of batches."""
    device: Literal["cpu", "cuda", "gpu", "mps", "multi-gpu"] | None = None
    """Where to train. Absent: on what the architecture prefers among what the machine has."""
    base_precision: Literal[16, 32, 64] = 32
    """Bits of the numbers the model computes with."""
    print_stats: bool | Literal["auto"] = "auto"
    """Whether statistics of the data sets are printed (``auto``: unless they are large)."""
    final_eval: bool = True
    """Whether the best model is evaluated on all sets at the end."""
    wandb: dict[str, Any] | None = None
    """Log to Weights & Biases with these arguments of its ``init``, for instance ``{project: water,
    mode: offline}``; short for the observer ``wandb`` (``pip install atomtrain-wandb``)."""
    observers: dict[str, dict[str, Any]] = {}
    """Loggers and callbacks of installed packages, by name with their arguments (``tensorboard: {}``);
    also just a name or a list of names."""
    architecture: ArchitectureSection
    """Which architecture, and its hypers."""
    training_set: list[DatasetSection]
    """What to train on: a path, a section, or a list of sections."""
    validation_set: list[PartOf]
    """What to choose the best model by: a fraction (below 1) or number of the structures of each
    training section, ``{indices: ...}``, a path, a section, or a list with one per training
    section."""
    test_set: list[PartOf] = []
    """What to test the best model on, written like the validation set. Absent: nothing."""

    _source: Source = PrivateAttr(default_factory=Source)

    @property
    def source(self) -> Source:
        """Where the options came from, for messages."""
        return self._source

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        training = data.get("training_set")
        if training is not None and not isinstance(training, list):
            data["training_set"] = training = [training]
        count = len(training) if isinstance(training, list) else 1
        for name in ("validation_set", "test_set"):
            value = data.get(name)
            if name not in data or value is None:
                continue
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                value = [value] * count
            elif not isinstance(value, list):
                value = [value]
            data[name] = [_whole_number(part) for part in value]
        if "observers" in data:
            data["observers"] = _by_name(data["observers"])
        return data

    @model_validator(mode="after")
    def _check(self) -> Options:
        problems: list[tuple[Path, str]] = []
        if not self.training_set:
            problems.append((("training_set",), "expected at least one section"))
        for name in ("validation_set", "test_set"):
            parts: list[PartOf] = getattr(self, name)
            if name == "validation_set" and not parts:
                problems.append(((name,), "expected at least one section"))
            for k, part in enumerate(parts):
                if isinstance(part, DatasetSection):
                    continue
                if len(parts) != len(self.training_set):
                    problems.append(
                        (
                            (name,),
                            f"has {len(parts)} entries for {len(self.training_set)} training "
                            "sections; fractions, counts and indices need one for each",
                        )
                    )
                    break
                if isinstance(part, float) and not 0 <= part < 1:
                    problems.append(
                        ((name, k), f"a fraction must be at least 0 and below 1, got {part:g}")
                    )
                if isinstance(part, int) and part < 0:
                    problems.append(((name, k), f"a count cannot be negative, got {part}"))
        if self.wandb is not None and "wandb" in self.observers:
            problems.append((("wandb",), "is given among the observers as well; keep one"))
        if problems:
            raise Problems(*problems)
        return self


def load_options(
    options: str | PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()
) -> Options:
    """Read, validate and complete an options file, or what one would hold.

    ``overrides`` are ``a.b.c=value`` texts. Raises OptionsError that lists every problem with file,
    line and key.
    """
    source = read_document(options, overrides)
    if not isinstance(source.values, dict):
        what = f"'{source.name}' is" if source.name else "the options are"
        raise OptionsError(
            f"{what} a list; an options file has the keys architecture, training_set "
            "and validation_set"
        )
    validated = validate(Options, source.values, source)
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
    source = read_document(options)
    values = source.values if isinstance(source.values, list) else [source.values]
    single = not isinstance(source.values, list)
    sections = []
    for k, value in enumerate(values):
        prefix: Path = () if single else (k,)
        section = validate(DatasetSection, value, source, prefix)
        section._source, section._path = source, prefix
        sections.append(section)
    return sections


def validate_hypers(
    cls: type[H],
    section: dict[str, Any],
    path: Path,
    source: Source,
) -> H:
    """The hypers of an architecture from a section of the options.

    Raises OptionsError with file, line, key and the nearest known name.
    """
    return validate(cls, section, source, path)


def complete(options: Options, model: BaseModel, training: BaseModel) -> dict[str, Any]:
    """The options with every default filled in: plain data that loads to the same options."""
    data = options.model_dump(mode="json")
    data["architecture"]["model"] = model.model_dump(mode="json")
    data["architecture"]["training"] = training.model_dump(mode="json")
    if data["architecture"]["atomic_types"] is None:
        del data["architecture"]["atomic_types"]
    return data


def dump_yaml(data: dict[str, Any], path: FilePath) -> None:
    """Write plain data as YAML."""
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def target_info(name: str, section: TargetSection, default_kind: str = "scalar") -> TargetInfo:
    """The layout of a target (its gradients are filled in when the data are known).

    Raises TargetError for what cannot be.
    """
    declared = section.type.kind if section.type is not None else None
    task = task_for(declared, default_kind, section.num_subtargets)
    cartesian = section.type.cartesian if section.type is not None else None
    spherical = section.type.spherical if section.type is not None else None
    info = TargetInfo(
        name=name,
        kind=task.kind,
        quantity=section.quantity,
        unit=section.unit,
        per_atom=section.per_atom,
        num_subtargets=section.num_subtargets,
        rank=cartesian.rank if cartesian is not None else 0,
        irreps=spherical.layout(section.num_subtargets) if spherical is not None else (),
        description=section.description,
        extra=_arguments(section),
        pooling=section.pooling or task.pooling,
        head=section.head.model_dump() if section.head is not None else {},
    )
    return task.complete(info)


def _arguments(section: TargetSection) -> dict[str, Any]:
    """What a task, or the core, has to know of the type beyond the layout."""
    if section.type is None:
        return {}
    cartesian = section.type.cartesian
    if cartesian is not None and cartesian.remove_mean:
        return {"remove_mean": True}
    return section.type.args


def check_units(sections: Sequence[DatasetSection]) -> None:
    """Raise OptionsError for units metatomic does not understand (imports torch)."""
    from metatomic.torch import unit_conversion_factor

    def understood(unit: str, like: str) -> str | None:
        try:
            unit_conversion_factor(unit, like)
        except (RuntimeError, ValueError) as error:
            return str(error).splitlines()[0]
        return None

    for section in sections:
        problem = understood(section.systems.length_unit, "angstrom")
        if problem:
            raise OptionsError(
                f"{section.where('systems', 'length_unit')}: "
                f"{shown(section.systems.length_unit)} is not a unit of length metatomic knows "
                "(for instance angstrom, nm, bohr)"
            )
        for name, target in section.targets.items():
            if target.unit and understood(target.unit, "eV" if target.is_energy else target.unit):
                raise OptionsError(
                    f"{section.where('targets', name, 'unit')}: {shown(target.unit)} is not "
                    + ("a unit of energy" if target.is_energy else "a unit")
                    + " metatomic knows (for instance eV, kcal/mol, hartree, eV/A^3)"
                )


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


def _by_name(observers: Any) -> Any:
    """One name, a list of names, or a section in which names may have no arguments."""
    if isinstance(observers, str):
        return {observers: {}}
    if isinstance(observers, list) and all(isinstance(name, str) for name in observers):
        return {name: {} for name in observers}
    if isinstance(observers, dict):
        return {name: {} if given is None else given for name, given in observers.items()}
    return observers


def _whole_number(part: Any) -> Any:
    """``100.0`` structures are a count, and only fractions stay floats."""
    if isinstance(part, float) and part >= 1 and part.is_integer():
        return int(part)
    if isinstance(part, str):
        return {"systems": part, "targets": {"energy": {"read_from": part}}}
    return part
