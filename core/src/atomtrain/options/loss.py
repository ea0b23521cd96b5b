"""The ``loss`` of a target: its type, the type's own arguments, and those of its gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from atomtrain.contract import component, components
from atomtrain.errors import did_you_mean
from atomtrain.options import peer
from atomtrain.sections import Problems, Section, translate


class NoArguments(Section):
    """Arguments of losses that have none."""


class HuberArguments(Section):
    """Arguments of ``huber``."""

    delta: Annotated[float, Field(gt=0)] = 1.0
    """Where the loss turns from a square to a line, in units of the target's scale."""


class ShiftAgnosticArguments(Section):
    """Arguments of ``shift_agnostic_mse``."""

    grad_penalty_weight: Annotated[float, Field(ge=0)]
    """Weight of the squared slope of the prediction where there is no label."""
    int_weight: Annotated[float, Field(ge=0)]
    """Weight of the squared error of the integral up to each grid point."""
    grid_step: Annotated[float, Field(gt=0)] = 0.05
    """Distance of the grid points, for slopes and integrals."""


class CrossEntropyArguments(Section):
    """Arguments of ``cross_entropy``."""

    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Weights of classes by name (1 where there is none); ``balanced``: inversely proportional to
    how often each occurs in the training set. Absent: all alike."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of each label that is spread evenly over all classes."""


class BinaryCrossEntropyArguments(Section):
    """Arguments of ``binary_cross_entropy``."""

    positive_weight: Literal["balanced"] | Annotated[float, Field(gt=0)] = 1.0
    """Weight of labels that are 1; ``balanced``: as many times as those that are 0 are more."""


LOSSES: dict[str, type[Section]] = {
    "mse": NoArguments,
    "mae": NoArguments,
    "huber": HuberArguments,
    "masked_mse": NoArguments,
    "masked_mae": NoArguments,
    "masked_huber": HuberArguments,
    "shift_agnostic_mse": ShiftAgnosticArguments,
    "cross_entropy": CrossEntropyArguments,
    "binary_cross_entropy": BinaryCrossEntropyArguments,
    "task": NoArguments,
}
"""The core's own losses and the sections of their arguments"""
IMPLIED = ("cross_entropy", "binary_cross_entropy")
"""those that need not be named where one of their arguments is given"""


class LossSpec(Section):
    """The loss of one target. In the file also just the name of its type."""

    model_config = ConfigDict(extra="allow", json_schema_extra=peer.allow_gradients)

    type: str = "mse"
    """Which loss: ``mse`` (squared error), ``mae`` (absolute error), ``huber`` (with ``delta``, 1.0
    unless given, where the square turns into a line), ``shift_agnostic_mse`` for densities of
    states (with ``grad_penalty_weight``, ``int_weight`` and, unless 0.05, ``grid_step``),
    ``cross_entropy`` for classes (with ``class_weights``, ``label_smoothing``),
    ``binary_cross_entropy`` (with ``positive_weight``), ``task`` for the own loss of a kind of target
    that a package brings, or one that an installed package brings,
    with its own arguments. Absent: what suits the kind of the target. Missing labels never count, nor do
    entries for which extra data called ``<target>_mask`` are 0; ``masked_mse``, ``masked_mae`` and
    ``masked_huber`` insist on such a mask."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight in the sum of all losses."""
    reduction: Literal["mean", "sum"] = "mean"
    """Whether the entries of a batch are averaged or summed."""
    gradients: dict[str, LossSpec] = {}
    """Losses of an energy's gradients: ``positions`` (forces) and ``strain`` (stress or virial),
    also written as ``forces``, ``stress``, ``virial`` beside the other keys. Absent: ``mse``."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the type, defaults filled in."""
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"type": data}
        if not isinstance(data, dict):
            return data
        data = {name: value for name, value in data.items() if value is not None}
        if "type" not in data:  # classes have one loss each: its arguments say which
            for name in IMPLIED:
                if not LOSSES[name].model_fields.keys().isdisjoint(data):
                    data["type"] = name
        return peer.gradients(data)

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in LOSSES and value not in (others := components("register_losses")):
            hint = did_you_mean(value, [*LOSSES, *others])
            raise ValueError(f"there is no loss '{value}'{hint}")
        return value

    @model_validator(mode="after")
    def _check_arguments(self) -> LossSpec:
        arguments, own = self.arguments, LOSSES.get(self.type)
        factory = loss_factory(self.type) if own is None else None
        known = list(own.model_fields) if own is not None else _parameters(factory)
        unknown = [name for name in arguments if known is not None and name not in known]
        if known is not None and unknown:
            hints = [did_you_mean(name, [*COMMON, *known]) for name in unknown]
            raise Problems(
                *(((n,), f"unknown key{hint}") for n, hint in zip(unknown, hints, strict=True))
            )
        if own is not None:
            try:
                complete = own.model_validate(arguments)
            except ValidationError as error:
                raise Problems(*translate(error, own)) from None
            for name, value in complete:
                setattr(self, name, value)
        elif factory is not None:
            try:
                factory(**arguments)
            except Exception as error:  # whatever a package's own check raises
                raise ValueError(f"loss '{self.type}': {error}") from error
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A name, or a section whose further keys depend on ``type``."""
        section = handler.resolve_ref_schema(handler(core_schema))
        about: JsonSchemaValue = {
            key: section.pop(key) for key in ("title", "description") if key in section
        }
        default = cls.model_fields["type"].default
        offered = list(components("register_losses"))
        short, branches = list(offered), []
        for arguments in dict.fromkeys(LOSSES.values()):
            names = [name for name, one in LOSSES.items() if one is arguments]
            own = handler.resolve_ref_schema(handler(arguments.__pydantic_core_schema__))
            needed = own.get("required", [])
            if not needed:
                short += names
            if not {default, *IMPLIED} & set(names):
                needed = ["type", *needed]
            branches.append(_branch(section, names, own.get("properties", {}), needed))
        if offered:  # their arguments are known only to their code
            branches.append(
                _branch(section, offered, {}, ["type"]) | {"additionalProperties": True}
            )
        return {**about, "anyOf": [{"enum": short}, *branches]}


COMMON = (*LossSpec.model_fields, *peer.BESIDE)
"""keys that losses of all types have"""
KEYS = (*COMMON, *dict.fromkeys(key for own in LOSSES.values() for key in own.model_fields))
"""keys that the core's losses have"""


def _branch(
    section: JsonSchemaValue, names: list[str], own: JsonSchemaValue, required: list[str]
) -> JsonSchemaValue:
    """The section of losses that have the same arguments."""
    properties = section["properties"]
    kinds = [{"enum": names}] if "type" in required else [{"enum": names}, {"type": "null"}]
    return {
        **section,
        "title": " or ".join(names),
        "properties": {**properties, "type": {**properties["type"], "anyOf": kinds}, **own},
        "required": required,
        "additionalProperties": False,
    }


def loss_factory(name: str) -> Callable[..., Any]:
    """What makes a loss of an installed package from its arguments (imports the package's code)."""
    factory: Callable[..., Any] = component("register_losses", name).load()
    return factory


def _parameters(factory: Callable[..., Any] | None) -> list[str] | None:
    """Names of the keyword arguments of a function or class, None if it takes any."""
    if factory is None:
        return None
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters]
