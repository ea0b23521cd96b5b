"""The JSON schema of an options file, for editors: what is installed, documented, strict.

pydantic makes the schema of each section, ``_short_forms`` adds what sections also accept. An editor
then says of a file what :func:`atomtrain.options.load_options` would, as far as a schema can: whether
keys agree with one another and with the data is known only later.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from atomtrain._version import __version__
from atomtrain.contract import catalog
from atomtrain.errors import PluginError
from atomtrain.options.options import ArchitectureSection, Options
from atomtrain.options.target_type import TypeSection
from atomtrain.plugins import Architecture
from atomtrain.schema.short_forms import NULL, Json, SchemaGenerator, is_a_word
from atomtrain.tasks import CORE_KINDS, known_kinds, task_of

# Draft 7: what editors know.
DRAFT = "http://json-schema.org/draft-07/schema#"


def options_schema(on_problem: Callable[[str], None] | None = None) -> Json:
    """The schema (draft 7) of an options file for the architectures and components installed.

    ``on_problem`` hears of each architecture that is broken and left out (else: a warning). Raises
    PluginError where no architecture is installed. Imports no torch.
    """
    tell = on_problem or (lambda text: warnings.warn(text, stacklevel=2))
    opened = list(_opened(tell))
    if not opened:
        raise PluginError(
            "no architecture is installed that could be described; architectures are packages of "
            "their own: try 'pip install atomtrain-soap-bpnn'"
        )
    own = (Options, ArchitectureSection, TypeSection)
    arguments = [task_of(kind).arguments for kind in CORE_KINDS]
    hypers = [cls for architecture in opened for cls in _hypers(architecture)]
    classes: list[Any] = list(dict.fromkeys([*own, *arguments, *hypers]))
    places, rest = models_json_schema(
        [(cls, "validation") for cls in classes], schema_generator=SchemaGenerator
    )
    definitions: Json = rest["$defs"]
    refs = {cls: places[cls, "validation"] for cls in classes}
    keys = {cls: refs[cls]["$ref"].rpartition("/")[2] for cls in own}

    _add_architectures(definitions[keys[ArchitectureSection]], opened, refs)
    _add_kinds(definitions[keys[TypeSection]], refs)
    options = definitions.pop(keys[Options])
    versions = ", ".join(f"{a.info.name} ({a.installed.origin})" for a in opened)
    return {
        "$schema": DRAFT,
        "$comment": f"made by 'atomtrain schema', atomtrain {__version__}: {versions}",
        **options,
        "title": "Options of atomtrain",
        "$defs": definitions,
    }


# -- what is installed ---------------------------------------------------------------------------


def _opened(tell: Callable[[str], None]) -> Iterable[Architecture]:
    found = catalog.architectures()
    names = [one.name for one in found]
    for one in found:
        if names.count(one.name) > 1:
            tell(f"'{one.name}' of {one.origin} is left out: several distributions have that name")
            continue
        try:
            architecture = Architecture(one)
            for cls in _hypers(architecture):
                cls.model_json_schema(schema_generator=SchemaGenerator)
        except PluginError as error:
            tell(f"'{one.name}' is left out: {error}")
        except Exception as error:  # hypers of types no schema can describe, or no pydantic models
            tell(
                f"'{one.name}' ({one.origin}) is left out: its hypers have no JSON schema: {error}"
            )
        else:
            yield architecture


def _hypers(architecture: Architecture) -> tuple[type[BaseModel], type[BaseModel]]:
    return architecture.model_hypers_class(), architecture.trainer_hypers_class()


def _add_architectures(
    section: Json, opened: list[Architecture], refs: dict[type[BaseModel], Json]
) -> None:
    """Names that are known, and under each name its own hypers."""
    properties = section["properties"]
    summaries, conditions = [], []
    for architecture in opened:
        info = architecture.info
        about = f"{info.summary} ({info.stage}, {architecture.installed.origin})"
        if info.deprecation is not None:
            about += f"; deprecated since {info.deprecation.since}: use {info.deprecation.instead}"
        summaries.append(about)
        pattern = _name_pattern([info.name, *info.aliases])
        model, training = _hypers(architecture)
        own = {
            key: {"description": properties[key]["description"], "anyOf": [refs[cls], NULL]}
            for key, cls in (("model", model), ("training", training))
        }
        for key, cls in (("model", model), ("training", training)):
            if any(field.is_required() for field in cls.model_fields.values()):
                own[key]["anyOf"] = [refs[cls]]
        condition = {"properties": {"name": {"pattern": pattern}}, "required": ["name"]}
        conditions.append({"if": condition, "then": {"properties": own}})
    everything = [name for a in opened for name in (a.info.name, *a.info.aliases)]
    properties["name"] = {
        "description": properties["name"]["description"],
        "anyOf": [
            {"enum": [a.info.name for a in opened], "enumDescriptions": summaries},
            {"type": "string", "pattern": _name_pattern(everything)},
        ],
    }
    for key in ("model", "training"):
        properties[key].pop("default", None)
    section["allOf"] = conditions


def _name_pattern(names: Iterable[str]) -> str:
    """What :func:`atomtrain.contract.catalog.normalise` turns into one of these names."""

    def letter(c: str) -> str:
        if c == "-":
            return "[-_]"
        return f"[{c.upper()}{c}]" if c.isalpha() else re.escape(c)

    words = ("".join(map(letter, catalog.normalise(name))) for name in names)
    prefix = "".join(map(letter, "experimental")), "".join(map(letter, "deprecated"))
    return rf"^\s*(({'|'.join(prefix)})\.)*({'|'.join(words)})\s*$"


def _add_kinds(definition: Json, refs: dict[type[BaseModel], Json]) -> None:
    """The kinds of targets there are; arguments of those that packages bring are their own."""
    words, section = definition["anyOf"]
    known = known_kinds()
    words["enum"] = [kind for kind in known if is_a_word(kind)]
    for kind in known:
        if kind in section["properties"]:
            continue
        arguments = refs[task_of(kind).arguments] if kind in CORE_KINDS else {"type": "object"}
        optional = [NULL] if is_a_word(kind) else []
        section["properties"][kind] = {"anyOf": [arguments, *optional]}
