"""MACE as an architecture of atomtrain, made of mace-torch's own blocks."""

__version__ = "0.1.0"
