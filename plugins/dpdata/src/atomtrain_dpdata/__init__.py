"""dpdata's readers for atomtrain: ``reader`` reads, ``formats`` knows formats and their flaws."""

__version__ = "0.1.0"
