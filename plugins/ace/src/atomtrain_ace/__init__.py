"""ACE: products of an atom's density on the sphere, for accurate potentials that train in minutes."""

__version__ = "0.1.0"
