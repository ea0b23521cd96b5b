"""Comparing what functions and their scripted versions give."""

from __future__ import annotations

import torch
from torch import Tensor


def check_alike(one: tuple[object, ...], other: tuple[object, ...]) -> None:
    for a, b in zip(one, other, strict=True):
        if isinstance(a, Tensor):
            assert isinstance(b, Tensor)
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        else:
            assert a == b
