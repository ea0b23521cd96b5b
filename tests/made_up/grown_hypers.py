"""The hypers of :mod:`grown_arch`: version 2 gave the only one another name."""

from atomtrain.options import Section


class Version1(Section):
    size: float = 1.0
    """What the values are multiplied with."""


class Version2(Section):
    amplitude: float = 1.0
    """What the values are multiplied with."""


Version3 = Version2
