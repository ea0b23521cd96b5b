"""The ``loss`` of a target: its type, the type's own arguments, and those of its gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from atomtrain.contract import components
from atomtrain.errors import did_you_mean
from atomtrain.sections import Problems, Section, translate

_GRADIENTS = {"positions": "forces", "forces": "forces", "strain": "strain", "stress": "strain",
              "virial": "strain"}  # fmt: skip


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

    model_config = ConfigDict(extra="allow")

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
    def _expand(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"type": data}
        if not isinstance(data, dict):
            return data
        data = {name: value for name, value in data.items() if value is not None}
        if "type" not in data:  # classes have one loss each: its arguments say which
            for name in IMPLIED:
                if not LOSSES[name].model_fields.keys().isdisjoint(data):
                    data["type"] = name
        gradients = data.get("gradients") or {}
        if not isinstance(gradients, dict):
            return data
        gradients = dict(gradients)
        for name in ("forces", "stress", "virial"):
            if name in data:
                gradients[name] = data.pop(name)
        renamed: dict[str, Any] = {}
        for name, value in gradients.items():
            if name not in _GRADIENTS:
                raise Problems(
                    (
                        ("gradients", name),
                        f"unknown gradient{did_you_mean(name, ('positions', 'strain'))}",
                    )
                )
            renamed[_GRADIENTS[name]] = value
        if renamed:
            data["gradients"] = renamed
        return data

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in LOSSES and value not in (others := _components()):
            known = [*LOSSES, *others]
            raise ValueError(f"there is no loss '{value}'{did_you_mean(value, known)}")
        return value

    @model_validator(mode="after")
    def _check_arguments(self) -> LossSpec:
        arguments = self.arguments
        own = LOSSES.get(self.type)
        factory = loss_factory(self.type) if own is None else None
        known = list(own.model_fields) if own is not None else _parameters(factory)
        unknown = [name for name in arguments if known is not None and name not in known]
        if known is not None and unknown:
            keys = [*LossSpec.model_fields, "forces", "stress", "virial", *known]
            raise Problems(
                *(((name,), f"unknown key{did_you_mean(name, keys)}") for name in unknown)
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


def loss_factory(name: str) -> Callable[..., Any]:
    """What makes a loss of an installed package from its arguments (imports the package's code)."""
    factory: Callable[..., Any] = _components()[name].load()
    return factory


def _components() -> dict[str, Any]:
    return components("register_losses")


def _parameters(factory: Callable[..., Any] | None) -> list[str] | None:
    """Names of the keyword arguments of a function or class, None if it takes any."""
    if factory is None:
        return None
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters]
