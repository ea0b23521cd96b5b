"""Weights & Biases for atomtrain: ``plugin`` has the hook, ``observer`` what it offers."""
