from atomtrain.options import Section


class ModelHypers(Section):
    """What a user of the architecture can set."""

    cutoff: float = 5.0
    """How far an atom sees, in the data's length unit."""
    width: int = 16
    """Number of learnt functions of distance and element."""
