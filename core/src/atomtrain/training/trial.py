"""A training that is only tried: a few batches of each pass, one stage, nothing written; and what that took.

A run that has a :class:`Trial` goes the way every run goes, whoever trains: sources give fewer batches, and the session
ends where the first stage does. So what is measured is what a training does.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from atomtrain.training.observers import StartInfo

T = TypeVar("T")
PATIENCE = 120.0
"""seconds after which a trainer that looks at the data over and over is stopped, though no stage has ended"""
NOTABLE = 0.3
"""by which part a first look at a batch must take longer than the next to be worth a word"""


@dataclass
class Pass:
    """One way through the batches of ``part``, ``batches`` in all with ``atoms``, of which a few were taken.

    ``taken``: atoms and seconds of each; the last two are the same batch, the first the largest.
    """

    part: str
    batches: int
    atoms: int
    in_stage: bool
    taken: list[tuple[int, float]] = field(default_factory=list)

    @property
    def spent(self) -> float:
        """Seconds that the batches took that were taken."""
        return sum(seconds for _, seconds in self.taken)

    def seconds(self, k: int = -1) -> float:
        """Estimate for all batches, by one that was taken: the last. NaN where there was none."""
        if not self.taken:
            return 0.0 if not self.batches else math.nan
        atoms, seconds = self.taken[k]
        return seconds * self.atoms / max(atoms, 1)

    @property
    def extra(self) -> float:
        """Seconds that the first look at all batches takes longer, where something is kept of it."""
        if len(self.taken) < 3 or self.taken[-2][0] != self.taken[-1][0]:
            return 0.0
        more = self.seconds(-2) - self.seconds()
        return more if more > NOTABLE * self.seconds() else 0.0


@dataclass
class Trial:
    """What was measured. Times in seconds, memory in bytes; NaN and None: not known.

    ``about``: what the session said at its start, and ``began`` when that was; ``before``: from there to the first
    stage, without batches; ``stage``: the one that ended, likewise; ``stages``: how many there are to go through, 0
    where nobody knows. ``peaks``: of the process, at the session's start and at the end. ``interrupted``: by a signal;
    ``gave_up``: no stage ended in time.
    """

    device: torch.device
    parts: int = 1
    """batches that make a step"""
    about: StartInfo | None = None
    passes: list[Pass] = field(default_factory=list)
    before: float = math.nan
    stage: float = math.nan
    stages: int = 0
    peaks: tuple[int | None, int | None] = (None, None)
    began: float = math.nan
    interrupted: bool = False
    gave_up: bool = False
    _began: float = math.nan
    _in_stage: bool = False

    # -- what the session tells -----------------------------------------------------------------

    def begin(self, about: StartInfo) -> None:
        """The session begins."""
        self.about = about
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.passes = []  # a restart may have judged the best weights anew
        self.peaks = (peak_memory(), None)
        self.began = self._began = self._now()

    def begin_stage(self, left: int) -> None:
        """The first of so many stages begins."""
        self.before = self._now() - self._began - sum(p.spent for p in self.passes)
        self.stages, self._in_stage, self._began = left, True, self._now()

    def end_stage(self) -> None:
        """It ended, or the first look at the validation set of a trainer that has no stages."""
        inside = sum(p.spent for p in self.passes if p.in_stage == self._in_stage)
        self.stage = self._now() - self._began - inside

    def end(self, interrupted: bool) -> None:
        """The session ends, perhaps because a signal wants it to."""
        self.peaks = (self.peaks[0], peak_memory())
        self.interrupted = interrupted
        self.gave_up = self.overdue and not self.ended

    @property
    def ended(self) -> bool:
        """Whether a stage was gone through."""
        return not math.isnan(self.stage)

    @property
    def overdue(self) -> bool:
        """Whether it is time to stop a trainer that goes on and on."""
        return time.monotonic() - self._began > PATIENCE

    # -- batches ----------------------------------------------------------------------------------

    def some(self, part: str, batches: Sequence[Tensor], n_atoms: Tensor) -> list[Tensor]:
        """Of all batches the largest, which needs the most memory, and one of middle size twice; in training as many of
        each as make a step."""
        sizes = [int(n_atoms[batch].sum()) for batch in batches]
        order = sorted(range(len(batches)), key=sizes.__getitem__)
        n = min(self.parts if part == "train" else 1, len(order))
        middle = order[max(0, len(order) // 2 - n // 2) :][:n]
        return [batches[k] for k in [*order[len(order) - n :], *middle, *middle]]

    def watched(self, one: Pass, sizes: Sequence[int], made: Iterator[T]) -> Iterator[T]:
        """The batches ``made``, with the time between them noted: making a batch, and what is done with it."""
        self.passes.append(one)
        steps = range(0, len(sizes), max(1, len(sizes) // 3))
        for first in steps:
            group = sizes[first : first + steps.step]
            began = self._now()
            try:
                for _ in group:
                    yield next(made)
            finally:
                one.taken.append((sum(group), self._now() - began))

    def pass_(self, part: str, batches: Sequence[Tensor], n_atoms: Tensor) -> Pass:
        """A pass through all these batches."""
        atoms = sum(int(n_atoms[batch].sum()) for batch in batches)
        return Pass(part, len(batches), atoms, self._in_stage)

    def _now(self) -> float:
        """The time, when a GPU has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.monotonic()

    # -- what follows from it ----------------------------------------------------------------------

    @property
    def per_step(self) -> float:
        """Seconds of a step of the optimiser, on the batch of middle size; NaN where there are none."""
        steps = [p for p in self.passes if p.in_stage and p.part == "train" and p.taken]
        has_steps = self.about is not None and self.about["n_steps"] > 0
        return steps[-1].taken[-1][1] if steps and has_steps else math.nan

    @property
    def per_stage(self) -> float:
        """Seconds of a stage (an epoch) with its validation."""
        return self.stage + sum(p.seconds() for p in self.passes if p.in_stage == self._in_stage)

    @property
    def once(self) -> float:
        """Seconds of what is done once: passes before the stages, and what first looks at batches take longer."""
        earlier = [p for p in self.passes if self._in_stage and not p.in_stage]
        extra = sum(p.extra for p in self.passes if p.in_stage)
        return (self.before if self._in_stage else 0.0) + sum(p.seconds() for p in earlier) + extra

    def look(self, part: str) -> float:
        """Seconds an atom of this part takes; NaN where there is none."""
        found = [p for p in self.passes if p.part == part and p.taken]
        return found[-1].seconds() / max(found[-1].atoms, 1) if found else math.nan

    @property
    def device_memory(self) -> tuple[int, int] | None:
        """The most that tensors on a GPU took, and what the GPU has; None where nobody knows."""
        if self.device.type == "cuda":
            whole = torch.cuda.get_device_properties(self.device).total_memory
            return torch.cuda.max_memory_reserved(self.device), whole
        if self.device.type == "mps":
            return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
        return None


def peak_memory() -> int | None:
    """The most memory this process had so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
