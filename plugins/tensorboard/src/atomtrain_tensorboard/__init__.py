"""TensorBoard for atomtrain: ``plugin`` has the hook, ``observer`` what it offers."""

__version__ = "0.1.0"
