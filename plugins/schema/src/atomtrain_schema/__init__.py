"""The JSON schema of options files, for editors: ``build`` makes it, ``command`` is ``atomtrain schema``."""

from atomtrain_schema.build import options_schema

__version__ = "0.1.0"
__all__ = ["__version__", "options_schema"]
