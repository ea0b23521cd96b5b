"""The JSON schema of an options file, for editors: what is installed, documented, strict.

pydantic makes the schema of each section; what sections also accept (their short forms, ``null``
for absent, ``${...}``) is put beside it here, by class. An editor then says of a file what
:func:`atomtrain.options.load_options` would, as far as a schema can: whether keys agree with one
another and with the data is known only later.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core.core_schema import DictSchema, ModelSchema

import atomtrain
from atomtrain.contract import Architecture, catalog, components
from atomtrain.errors import PluginError
from atomtrain.options._names import OLDER_TARGETS, STANDARD_TARGETS, SYMBOLS
from atomtrain.options._section import Section
from atomtrain.options.dataset import (
    DatasetSection,
    GradientSection,
    SystemsSection,
    TargetSection,
)
from atomtrain.options.loss import LOSSES, LossSpec
from atomtrain.options.options import ArchitectureSection, Options
from atomtrain.options.target_type import KINDS, SphericalSection, TypeSection
from atomtrain.options.trainer import Finetune, TrainerHypers

Json = dict[str, Any]

# Draft 7: what editors know.
DRAFT = "http://json-schema.org/draft-07/schema#"

_NULL: Json = {"type": "null"}
_TEXT: Json = {"type": "string", "minLength": 1}
_INTERPOLATION: Json = {"type": "string", "pattern": r"\$\{.+\}"}
_ATOMIC_TYPES: Json = {"anyOf": [{"enum": SYMBOLS}, {"pattern": "^([1-9][0-9]*|false)$"}]}
_ANNOTATIONS = ("title", "description", "default", "deprecated", "examples")


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
    classes: list[Any] = [(cls, "validation") for cls in own]
    for architecture in opened:
        classes += [(cls, "validation") for cls in _hypers(architecture)]
    unique = list(dict.fromkeys(classes))
    places, rest = models_json_schema(unique, schema_generator=_Generator)
    definitions: Json = rest["$defs"]
    refs = {cls: places[cls, "validation"] for cls, _ in unique}
    keys = {cls: refs[cls]["$ref"].rpartition("/")[2] for cls in own}

    _add_architectures(definitions[keys[ArchitectureSection]], opened, refs)
    _add_kinds(definitions[keys[TypeSection]], opened)
    options = definitions.pop(keys[Options])
    versions = ", ".join(f"{a.info.name} ({a.installed.origin})" for a in opened)
    return {
        "$schema": DRAFT,
        "$comment": f"made by 'atomtrain schema', atomtrain {atomtrain.__version__}: {versions}",
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
                cls.model_json_schema(schema_generator=_Generator)
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
            key: {"description": properties[key]["description"], "anyOf": [refs[cls], _NULL]}
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


def _add_kinds(definition: Json, opened: list[Architecture]) -> None:
    """Kinds of targets: the core's, those of tasks, those an architecture names."""
    offered = components("register_tasks")
    kinds = [*KINDS, *offered, *(kind for a in opened for kind in a.info.target_kinds)]
    words, section = definition["anyOf"]
    words["enum"] = [kind for kind in dict.fromkeys(kinds) if _is_a_word(kind)]
    for kind in kinds:
        section["properties"].setdefault(kind, {"type": ["object", "null"]})


def _is_a_word(kind: str) -> bool:
    """Whether a kind of target may stand alone, without arguments."""
    try:
        TypeSection.model_validate(kind)
    except ValidationError:
        return False
    return True


# -- what sections accept beside their fields -----------------------------------------------------


class _Generator(GenerateJsonSchema):
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


def _absent(json: Json) -> Json:
    """``null`` is as good as no key, and ``${...}`` may stand for any value."""
    required = json.get("required", [])
    for key, value in json.get("properties", {}).items():
        also = [_INTERPOLATION] if key in required else [_NULL, _INTERPOLATION]
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
        "anyOf": [{"type": "boolean"}, _NULL],
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
    """One word, or one word with arguments (the words: see ``_add_kinds``)."""
    for kind, value in json["properties"].items():
        if not _is_a_word(kind):
            value["anyOf"].remove(_NULL)
    section = {**json, "minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    about = {key: section.pop(key) for key in ("title", "description") if key in section}
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
        properties[name] = {"anyOf": [spec, _NULL], "description": f"Loss of the {name}."}
    about = {key: value for key, value in json.items() if key in ("title", "description")}
    branches: list[Json] = []
    for arguments in dict.fromkeys(LOSSES.values()):
        own = _absent(arguments.model_json_schema(schema_generator=_Generator))
        types = [name for name, cls in LOSSES.items() if cls is arguments]
        default = properties["type"]["default"] in types
        kind = {"description": properties["type"]["description"], "enum": types}
        branches.append(
            {
                "title": " or ".join(types),
                "type": "object",
                "properties": {
                    **properties,
                    "type": _or(kind, _NULL) if default else kind,
                    **own.get("properties", {}),
                },
                "required": ([] if default else ["type"]) + own.get("required", []),
                "additionalProperties": False,
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
    json["properties"]["read_from"] = _or(json["properties"]["read_from"], _NULL)
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
