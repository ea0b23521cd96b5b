"""The contract with plugins: every hook, and what they exchange."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from _pages.text import markdown, table
from atomtrain import contract
from atomtrain.contract import hookspecs
from atomtrain.model import Model

MODELS = (
    "The model that `build_model` returns has `forward`, and may answer more. Each of these has a default that says "
    "no; which of them the [kit](../conformance.md) checks is said there."
)
OF_MODELS = (
    "extra_inputs",
    "feature_outputs",
    "structure_outputs",
    "atom_outputs",
    "last_layer_outputs",
    "last_layer_weights",
    "last_layer_groups",
    "constants",
    "layout",
    "keeps_structures",
    "is_head",
    "calibrate",
    "keep_second_derivatives",
    "before_export",
    "retarget",
    "grow",
)


def hook_page() -> str:
    """The reference of hooks, made from their specifications."""
    about = markdown(hookspecs.__doc__).partition("\n")[2]
    parts = ["# Hooks", about]
    for cls in (hookspecs.ArchitectureHooks, hookspecs.ComponentHooks):
        title = cls.__name__.replace("Hooks", "")
        parts += [f"## {title}s", markdown(cls.__doc__)]
        for name, hook in hooks(cls):
            parts += [f"### `{name}`", _signature(name, hook), markdown(hook.__doc__)]
    parts += ["## What a model may answer", MODELS]
    for name in OF_MODELS:
        method = getattr(Model, name)
        about = markdown(method.__doc__)
        parts += [
            f"### `Model.{name}`",
            f"```python\ndef {name}{_arguments(method)}: ...\n```",
            about,
        ]
    parts += ["## What hooks exchange"]
    for cls in (
        contract.ArchitectureInfo,
        contract.Person,
        contract.Deprecation,
        contract.BuildContext,
        contract.ComponentSpec,
        contract.ReaderSpec,
        contract.EvaluationSpec,
    ):
        parts += [f"### `{cls.__name__}`", markdown(cls.__doc__), _fields(cls)]
    return "\n\n".join(part for part in parts if part) + "\n"


def hooks(cls: type) -> list[tuple[str, Any]]:
    """The hooks of a class of specifications."""
    return [(name, hook) for name, hook in vars(cls).items() if not name.startswith("_")]


def _signature(name: str, hook: Any) -> str:
    signature = inspect.signature(hook)
    given = [p for n, p in signature.parameters.items() if n != "self"]
    arguments = ", ".join(f"{p.name}: {p.annotation}" for p in given)
    return (
        f"```python\n@hookimpl\ndef {name}({arguments}) -> {signature.return_annotation}: ...\n```"
    )


def _arguments(method: Any) -> str:
    """The signature of a method, names without their modules."""
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(inspect.signature(inspect.unwrap(method))))


def _fields(cls: Any) -> str:
    def default(field: dataclasses.Field[Any]) -> str:
        if field.default is not dataclasses.MISSING:
            return f"`{field.default!r}`"
        if field.default_factory is not dataclasses.MISSING:
            return f"`{field.default_factory()!r}`"
        return "required"

    rows = [
        (f"`{field.name}`", f"`{field.type}`", default(field)) for field in dataclasses.fields(cls)
    ]
    return table(("field", "type", "default"), rows)
