"""Sections of a YAML file: reading it with its lines, validating it, saying what is wrong.

:class:`Section` is the base class of all options and hypers; ``document`` reads a file and remembers where
every key is; ``problems`` turns what pydantic finds into sentences; ``names`` knows elements and the names of
targets; ``written`` writes values as YAML, for people. Nothing here knows which sections there are.
"""

from atomtrain.sections.document import Path as Path
from atomtrain.sections.document import Source as Source
from atomtrain.sections.document import read_document as read_document
from atomtrain.sections.document import read_file as read_file
from atomtrain.sections.problems import Problems as Problems
from atomtrain.sections.problems import shown as shown
from atomtrain.sections.problems import translate as translate
from atomtrain.sections.problems import validate as validate
from atomtrain.sections.section import Section as Section
from atomtrain.sections.section import defaults_of as defaults_of
from atomtrain.sections.section import sections_inside as sections_inside
from atomtrain.sections.written import in_lines as in_lines
from atomtrain.sections.written import on_one_line as on_one_line
from atomtrain.sections.written import written as written
