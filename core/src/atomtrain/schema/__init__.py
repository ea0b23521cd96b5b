"""The JSON schema of an options file, for editors.

``build`` joins what is installed, ``short_forms`` says what sections accept beside their fields.
"""

from atomtrain.schema.build import options_schema

__all__ = ["options_schema"]
