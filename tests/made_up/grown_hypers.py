"""The hypers of :mod:`grown_arch`: version 2 gave the only one another name, version 3 added one."""

from atomtrain.options import Section


class Version1(Section):
    size: float = 1.0
    """What the values are multiplied with."""


class Version2(Section):
    amplitude: float = 1.0
    """What the values are multiplied with."""


class Version3(Version2):
    offset: float = 0.0
    """What is added to them. Upgrades say nothing of it: the default is what there was."""
