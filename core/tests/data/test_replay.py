"""Batches with a share of old structures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atomtrain.data import Limits, replay_batches


def drawn(
    n_atoms: Tensor, old: Tensor, epoch: int = 0, size: int = 8, share: float = 0.25, **limits: int
) -> list[Tensor]:
    return replay_batches(
        n_atoms, size, old, share, shuffled=(3, epoch), limits=Limits(drop_last=True, **limits)
    )


def test_every_batch_has_its_share() -> None:
    """What is new is gone through once, what is old is drawn: none twice before all were there."""
    old = torch.arange(100) >= 20
    sizes = torch.full((100,), 5)
    batches = drawn(sizes, old)
    assert [int(old[b].sum()) for b in batches] == [2, 2, 2]
    new = torch.cat([b[~old[b]] for b in batches])
    assert len(new) == len(new.unique()) == 18
    seen = [torch.cat([b[old[b]] for b in drawn(sizes, old, epoch)]) for epoch in range(9)]
    assert all(len(one) == len(one.unique()) for one in seen)
    assert len(torch.cat(seen).unique()) > 30  # others in every epoch
    for one, again in zip(drawn(sizes, old, 4), drawn(sizes, old, 4), strict=True):
        assert torch.equal(one, again)
    few = torch.arange(100) >= 97  # three old ones, gone through again and again
    batches = drawn(sizes, few)
    counts = torch.bincount(torch.cat([b[few[b]] for b in batches]), minlength=100)[97:]
    assert len(batches) == 16 and int(counts.sum()) == 32 and int(counts.min()) > 4


def test_shares_of_atoms() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(2, 9, (60,), generator=generator)
    old = torch.arange(60) >= 30
    for batch in drawn(sizes, old, max_atoms=40):
        assert int(sizes[batch[old[batch]]].sum()) <= 10
        assert int(sizes[batch[~old[batch]]].sum()) <= 30
    with pytest.raises(ValueError, match="no old structure fits"):
        drawn(sizes + 20, old, max_atoms=60)
