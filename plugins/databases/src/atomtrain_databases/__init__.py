"""Large data sets of other packages: ``aselmdb`` reads fairchem's, ``mace`` reads MACE's."""

__version__ = "0.1.0"
