"""Batches of structures without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ase import Atoms

from atomtrain.data import BatchSource, StructureStore
from atomtrain.graph import AtomGraph
from atomtrain_testing.predictions import store_of


def source_of(store: StructureStore, **changes: Any) -> BatchSource:
    """Batches cut at 5 angstrom, on the CPU, in float64, everything kept."""
    return BatchSource(
        store,
        **{
            "cutoff": 5.0,
            "dtype": torch.float64,
            "constants": None,
            "device": torch.device("cpu"),
            "memory_budget": 1 << 28,
            "num_workers": 0,
            **changes,
        },
    )


def graph_of(frames: Sequence[Atoms], **changes: Any) -> AtomGraph:
    """All frames as one batch of :func:`source_of`."""
    return source_of(store_of(frames), **changes).batch(torch.arange(len(frames))).graph
