"""What sections of the options accept beside what their fields say, for the JSON schema.

A before-validator that spells out a short form (a path for a section, ``null`` for absent) is code,
which pydantic cannot put into a schema; each has its counterpart here, by class.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import DictSchema, ModelSchema

from atomtrain.contract import components
from atomtrain.options.dataset import (
    DatasetSection,
    GradientSection,
    SystemsSection,
    TargetSection,
)
from atomtrain.options.loss import IMPLIED, LOSSES, LossSpec
from atomtrain.options.options import ArchitectureSection, Options
from atomtrain.options.target_type import SphericalSection, TypeSection
from atomtrain.options.trainer import Finetune, TrainerHypers
from atomtrain.sections import Section
from atomtrain.sections.names import OLDER_TARGETS, STANDARD_TARGETS, SYMBOLS

Json = dict[str, Any]

NULL: Json = {"type": "null"}
_TEXT: Json = {"type": "string", "minLength": 1}
_INTERPOLATION: Json = {"type": "string", "pattern": r"\$\{.+\}"}
_ATOMIC_TYPES: Json = {"anyOf": [{"enum": list(SYMBOLS)}, {"pattern": "^([1-9][0-9]*|false)$"}]}
_ANNOTATIONS = ("title", "description", "default", "deprecated", "examples")


class SchemaGenerator(GenerateJsonSchema):
    """pydantic's, with the short forms of each section."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # a title that only repeats the key is noise in an editor

    def dict_schema(self, schema: DictSchema) -> JsonSchemaValue:
        json = super().dict_schema(schema)
        if schema.get("keys_schema", {}).get("type") == "int":
            json["propertyNames"] = {"pattern": "^-?[0-9]+$"}
        return json

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        json = super().model_schema(schema)
        cls = schema["cls"]
        if not issubclass(cls, Section):
            return json
        json = deepcopy(json)
        for base in reversed(cls.__mro__):
            if base in _FORMS:
                json = _FORMS[base](json)
        return json


def is_a_word(kind: str) -> bool:
    """Whether a kind of target may stand alone, without arguments."""
    try:
        TypeSection.model_validate(kind)
    except ValidationError:
        return False
    return True


def _absent(json: Json) -> Json:
    """``null`` is as good as no key, and ``${...}`` may stand for any value."""
    required = json.get("required", [])
    for key, value in json.get("properties", {}).items():
        also = [_INTERPOLATION] if key in required else [NULL, _INTERPOLATION]
        json["properties"][key] = _or(value, *also)
    return json


def _or(json: Json, *alternatives: Json) -> Json:
    """``json`` or one of the alternatives; what is said about it stays outside."""
    about = {key: value for key, value in json.items() if key in _ANNOTATIONS}
    bare = {key: value for key, value in json.items() if key not in _ANNOTATIONS}
    known = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    return {**about, "anyOf": [*known, *(a for a in alternatives if a not in known)]}


def _also(*forms: Json) -> Callable[[Json], Json]:
    """A section that may be written as something short as well."""

    def change(json: Json) -> Json:
        return _or(json, *forms)

    return change


def _target(json: Json) -> Json:
    properties = json["properties"]
    properties["sample_kind"]["anyOf"][0]["enum"].remove(
        "atom_pair"
    )  # known, refused with a reason
    properties["per_atom"] = {
        "anyOf": [{"type": "boolean"}, NULL],
        "description": "Older spelling of sample_kind: true for 'atom', false for 'system'.",
    }
    return _or(json, {"type": "string"})


def _dataset(json: Json) -> Json:
    standard = "|".join([*STANDARD_TARGETS, *OLDER_TARGETS])
    part = "([^/:]|:(?!:))+"
    for value in _alternatives(json["properties"]["targets"]):
        if value.get("type") == "object":
            value["propertyNames"] = {
                "pattern": rf"^(({standard})(/.+)?|{part}(::{part})+(/((?!::).)+)?)$"
            }
    return _or(json, _TEXT)


def _type(json: Json) -> Json:
    """One word, or one word with arguments (the words: see ``schema._add_kinds``)."""
    for kind, value in json["properties"].items():
        if not is_a_word(kind):
            value["anyOf"].remove(NULL)
    section = {**json, "minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    about: Json = {key: section.pop(key) for key in ("title", "description") if key in section}
    return {**about, "anyOf": [{"enum": []}, section]}


def _spherical(json: Json) -> Json:
    for value in _alternatives(json["properties"]["irreps"]):
        if value.get("type") == "object":
            value.update(propertyNames=_ATOMIC_TYPES, minProperties=1)
        elif value.get("type") == "array":
            value["minItems"] = 1
    json["properties"]["product"]["anyOf"][0] = {"const": "coupled"}
    return json


def _loss(json: Json) -> Json:
    """A name, or a section whose further keys depend on ``type``."""
    offered = list(components("register_losses"))
    properties = json["properties"]
    spec = _alternatives(properties["gradients"])[0]["additionalProperties"]
    names = {"enum": ["positions", "forces", "strain", "stress", "virial"]}
    _alternatives(properties["gradients"])[0]["propertyNames"] = names
    for name in ("forces", "stress", "virial"):
        properties[name] = {"anyOf": [spec, NULL], "description": f"Loss of the {name}."}
    about = {key: value for key, value in json.items() if key in ("title", "description")}
    branches: list[Json] = []
    for arguments in dict.fromkeys(LOSSES.values()):
        own = _absent(arguments.model_json_schema(schema_generator=SchemaGenerator))
        types = [name for name, cls in LOSSES.items() if cls is arguments]
        default = properties["type"]["default"] in types
        kind = {"description": properties["type"]["description"], "enum": types}
        implied = list(arguments.model_fields) if set(types) <= set(IMPLIED) else []
        told = [{"required": [key]} for key in ["type", *implied]]
        branches.append(
            {
                "title": " or ".join(types),
                "type": "object",
                "properties": {
                    **properties,
                    "type": _or(kind, NULL) if default else kind,
                    **own.get("properties", {}),
                },
                "required": own.get("required", []),
                "additionalProperties": False,
                **({} if default else {"anyOf": told}),
            }
        )
    if offered:  # their arguments are known only to their code
        kind = {"description": properties["type"]["description"], "enum": offered}
        branches.append(
            {
                "title": " or ".join(offered),
                "type": "object",
                "properties": {**properties, "type": kind},
                "required": ["type"],
            }
        )
    short = [
        name for name, cls in LOSSES.items()
        if not any(field.is_required() for field in cls.model_fields.values())
    ]  # fmt: skip
    return {**about, "anyOf": [{"enum": [*short, *offered]}, *branches]}


def _trainer(json: Json) -> Json:
    properties = json["properties"]
    own = [*LossSpec.model_fields, "forces", "stress", "virial"]
    for value in _alternatives(properties["loss"]):
        if value.get("type") == "object":
            value["propertyNames"] = {"not": {"enum": own}}
    for key in ("atomic_baseline", "fixed_scaling_weights"):
        for value in _alternatives(properties[key]):
            for inner in _alternatives(value.get("additionalProperties", {})):
                if inner.get("type") == "object":
                    inner["propertyNames"] = _ATOMIC_TYPES
    bounds = _alternatives(properties["batch_atom_bounds"])[0]
    bounds.update(minItems=2, maxItems=2)
    bounds["items"] = _or(bounds["items"], {"enum": ["None", "none"]})
    for value in _alternatives(properties["memory_budget"]):
        if value.get("type") == "string" and "pattern" not in value:
            value["pattern"] = r"^\s*[0-9]+(\.[0-9]*)?\s*([KMGTkmgt]?[iI]?[bB])?\s*$"
    return json


def _finetune(json: Json) -> Json:
    """Without a path there is no fine-tuning: files of the peer carry an empty section."""
    json.pop("required", None)
    json["properties"]["read_from"] = _or(json["properties"]["read_from"], NULL)
    return json


def _architecture(json: Json) -> Json:
    for value in _alternatives(json["properties"]["atomic_types"]):
        if value.get("type") == "array":
            value["items"] = {
                "anyOf": [
                    {"type": "integer", "minimum": 1},
                    {"type": "string", **_ATOMIC_TYPES},
                    {"const": False},  # how YAML reads nobelium
                ]
            }
    return json


def _options(json: Json) -> Json:
    properties = json["properties"]
    training = _alternatives(properties["training_set"])[0]
    training["minItems"] = 1
    properties["training_set"] = _or(properties["training_set"], training["items"])
    for key in ("validation_set", "test_set"):
        several = _alternatives(properties[key])[0]
        for part in _alternatives(several["items"]):
            if part.get("type") == "number":
                part.update(minimum=0, exclusiveMaximum=1)
            elif part.get("type") == "integer":
                part["minimum"] = 0
        if key == "validation_set":
            several["minItems"] = 1
        properties[key] = _or(properties[key], *_alternatives(several["items"]))
    observers = properties["observers"]
    _alternatives(observers)[0]["additionalProperties"] = {"type": ["object", "null"]}
    name = {"type": "string"}
    properties["observers"] = _or(observers, name, {"type": "array", "items": name})
    return json


def _alternatives(json: Json) -> list[Json]:
    found: list[Json] = json.get("anyOf", [json])
    return found


_FORMS: dict[type, Callable[[Json], Json]] = {
    Section: _absent,
    SystemsSection: _also(_TEXT),
    GradientSection: _also({"type": "boolean"}, {"type": "string"}),
    TargetSection: _target,
    DatasetSection: _dataset,
    TypeSection: _type,
    SphericalSection: _spherical,
    LossSpec: _loss,
    Finetune: _finetune,
    TrainerHypers: _trainer,
    ArchitectureSection: _architecture,
    Options: _options,
}
"""What a section accepts beside what its fields say; base classes first."""
