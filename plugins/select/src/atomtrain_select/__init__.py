"""Which structures of a pool to label next: ``atomtrain select``.

``seen`` asks a model for uncertainties and features, ``choose`` chooses by them, ``command`` is the command.
"""

from __future__ import annotations

__version__ = "0.1.0"
