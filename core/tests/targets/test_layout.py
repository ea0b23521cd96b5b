"""Layouts of targets: their blocks, what cannot be."""

from __future__ import annotations

import pytest
from helpers.models import Pairwise, energy_info

from atomtrain.errors import TargetError
from atomtrain.targets import Block, DatasetInfo, Irrep, TargetInfo


def test_layouts() -> None:
    spherical = TargetInfo("a::t", kind="spherical", irreps=(Irrep(0, 1, 2), Irrep(2, -1)))
    assert [b.shape for b in spherical.blocks] == [(1, 2), (5, 1)]
    assert [b.invariant for b in spherical.blocks] == [True, False]
    assert spherical.width == 7
    assert TargetInfo("a::m", kind="cartesian", rank=2).blocks[0].shape == (3, 3, 1)
    assert isinstance(spherical.blocks[0], Block)
    info = DatasetInfo("angstrom", (1, 8), {"a::t": spherical, **energy_info().targets})
    assert DatasetInfo.from_dict(info.to_dict()) == info
    with pytest.raises(TargetError, match="exist only for a target that is an energy"):
        TargetInfo("a::x", gradients=("forces",))
    with pytest.raises(TargetError, match="predicts one energy per structure"):
        Pairwise(info)
