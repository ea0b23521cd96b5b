"""A linear potential: products of an atom's density, with coefficients found in closed form."""

__version__ = "0.1.0"
