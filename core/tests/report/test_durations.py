"""Durations in words."""

from __future__ import annotations

import math

import pytest

from atomtrain.report.durations import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (math.nan, "?"),
        (0.0, "0 s"),
        (0.00123, "1.23 ms"),
        (0.949, "949 ms"),
        (0.96, "0.96 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (184.0, "3 min 4 s"),
        (599.4, "9 min 59 s"),
        (599.6, "10 min"),
        (5965.0, "99 min"),
        (5999.0, "1 h 40 min"),
        (90000.0, "25 h 0 min"),
    ],
)
def test_two_digits_are_enough(seconds: float, said: str) -> None:
    assert duration(seconds) == said
