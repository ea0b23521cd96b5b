"""How long something takes, in words. Plain standard library."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """``350 ms``, ``12 s``, ``3 min 4 s``, ``25 min``, ``1 h 40 min``: about two digits; a question mark for NaN."""
    if math.isnan(seconds):
        return "?"
    if seconds < 0.95:
        return f"{1000 * seconds:.3g} ms" if seconds > 0 else "0 s"
    if seconds < 59.5:
        return f"{seconds:.2g} s"
    if seconds < 599.5:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else "{} h {} min".format(*divmod(minutes, 60))
