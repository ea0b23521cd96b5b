"""What the JSON schema of the options finds wrong with a file, as an editor would."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

from atomtrain.sections.document import read_document
from atomtrain_schema import options_schema


def new_validator() -> Any:
    """A validator of the schema of what is installed now."""
    schema = options_schema()
    cls = jsonschema.validators.validator_for(schema)
    assert cls is jsonschema.Draft7Validator
    cls.check_schema(schema)
    return cls(schema)


@functools.lru_cache
def validator() -> Any:
    """The same, made once."""
    return new_validator()


def refusals(file: Path, overrides: list[str] | None = None, fresh: bool = False) -> list[str]:
    """What the schema finds wrong with a file (an editor's keys are all text).

    ``fresh``: by a schema made now, because something was installed for this test.
    """
    values = read_document(file, overrides or []).values
    checked_by = new_validator() if fresh else validator()
    return [
        f"{error.json_path}: {error.message}"
        for error in checked_by.iter_errors(json.loads(json.dumps(values)))
    ]
