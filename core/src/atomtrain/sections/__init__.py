"""Sections of a YAML file: reading it with its lines, validating it, saying what is wrong.

:class:`Section` is the base class of all options and hypers; ``document`` reads a file and remembers where
every key is; ``problems`` turns what pydantic finds into sentences; ``names`` knows elements and the names of
targets. Nothing here knows which sections there are.
"""

from atomtrain.sections.document import Path, Source, read_document, read_file
from atomtrain.sections.problems import Problems, fail, shown, translate, validate
from atomtrain.sections.section import Section, defaults_of
