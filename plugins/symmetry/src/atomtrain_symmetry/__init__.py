"""Crystal symmetry for atomtrain: ``plugin`` has the hook, ``tasks`` what it offers."""

__version__ = "0.1.0"
