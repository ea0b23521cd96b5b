"""Architectures and options side by side: ``command`` is ``atomtrain compare``.

``variants`` and ``split`` say what is trained on what, ``budget`` for how long; ``running`` trains, ``measures``
looks at what came of it; ``table`` and ``picture`` show the ``results``, ``written`` keeps them, and
``comparison`` puts all of it together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomtrain_compare.comparison import compare as compare
    from atomtrain_compare.results import Comparison as Comparison
    from atomtrain_compare.results import Result as Result

__version__ = "0.1.0"
__all__ = ["Comparison", "Result", "__version__", "compare"]


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: the help of the command needs none of it."""
    if name == "compare":
        from atomtrain_compare.comparison import compare

        return compare
    if name in ("Comparison", "Result"):
        from atomtrain_compare import results

        return getattr(results, name)
    raise AttributeError(name)
