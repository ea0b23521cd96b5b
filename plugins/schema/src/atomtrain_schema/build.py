"""The JSON schema of an options file, for editors: what is installed, documented, strict.

pydantic makes the schema of each section, short forms included; what it cannot know is added here: what
is installed, and that any key may be ``null`` or ``${...}``. An editor then says of a file what
:func:`atomtrain.options.load_options` would, as far as a schema can: whether keys agree with one
another and with the data is known only later.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from atomtrain import __version__
from atomtrain.contract import catalog
from atomtrain.errors import PluginError
from atomtrain.options.options import ArchitectureSection, Options
from atomtrain.options.target_type import TypeSection
from atomtrain.plugins import Architecture
from atomtrain.sections import Section
from atomtrain.tasks import known_kinds, task_of

# Draft 7: what editors know.
DRAFT = "http://json-schema.org/draft-07/schema#"

Json = dict[str, Any]
NULL: Json = {"type": "null"}
INTERPOLATION: Json = {"type": "string", "pattern": r"\$\{.+\}"}
ANNOTATIONS = ("title", "description", "default", "deprecated", "examples")


class SchemaGenerator(GenerateJsonSchema):
    """pydantic's, for files in YAML: keys are text, ``null`` is as good as no key, ``${...}`` any value."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # a title that only repeats the key is noise in an editor

    def dict_schema(self, schema: core_schema.DictSchema) -> Json:
        """Limits of keys in one place; pydantic would let keys pass that fit no pattern."""
        json = super().dict_schema(schema)
        for value in json.pop("patternProperties", {}).values():
            json["additionalProperties"] = value
        keys = self.generate_inner(schema.get("keys_schema", core_schema.str_schema()))
        if keys == {"type": "integer"}:
            keys = {"pattern": "^-?[0-9]+$"}
        if keys != {"type": "string"}:
            json["propertyNames"] = keys
        return json

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> Json:
        """An empty section may fit several alternatives: code chooses one."""
        json = super().tagged_union_schema(schema)
        return {("anyOf" if key == "oneOf" else key): value for key, value in json.items()}

    def model_schema(self, schema: core_schema.ModelSchema) -> Json:
        json = super().model_schema(schema)
        if issubclass(schema["cls"], Section):
            required = json.get("required", [])
            for key, value in json.get("properties", {}).items():
                also = [INTERPOLATION] if key in required else [NULL, INTERPOLATION]
                json["properties"][key] = _or(value, *also)
        return json


def _or(json: Json, *alternatives: Json) -> Json:
    """``json`` or one of the alternatives; what is said about it stays outside."""
    about = {key: value for key, value in json.items() if key in ANNOTATIONS}
    bare = {key: value for key, value in json.items() if key not in ANNOTATIONS}
    known = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    return {**about, "anyOf": [*known, *(a for a in alternatives if a not in known)]}


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
    arguments = [task_of(kind).arguments for kind in known_kinds()]
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
    """A kind of target is a word, or a section of one word with its arguments."""
    words, properties = [], definition.pop("properties")
    for kind in dict.fromkeys(known_kinds()):
        arguments = refs[task_of(kind).arguments]
        alternatives = properties.setdefault(kind, {"anyOf": [arguments, NULL]})
        if _is_a_word(kind):
            words.append(kind)
        else:
            alternatives["anyOf"].remove(NULL)
    section = {"type": definition.pop("type"), "properties": properties}
    section |= {"additionalProperties": False, "minProperties": 1, "maxProperties": 1}
    definition["anyOf"] = [{"enum": words}, section]
    del definition["additionalProperties"]


def _is_a_word(kind: str) -> bool:
    """Whether a kind of target may stand alone, without arguments."""
    try:
        TypeSection.model_validate(kind)
    except ValidationError:
        return False
    return True
